"""Token shards: tokenised once, memory-mapped, position-addressable.

A shard folder holds three flat arrays and a manifest that is written last:
``tokens.bin`` (int32), ``mask.bin`` (uint8; 1 where the loss applies) and ``offsets.bin`` (int64, one more
than there are examples). Example ``i`` is the slice ``offsets[i]:offsets[i + 1]`` of both. Where the table's
partitions matter, the manifest says which examples each holds.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from byzerllm_adapters.conversations import Encoded

from .job_folder import read_json, write_json

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shards:
    """Tokenised examples on disk.

    Attributes:
        tokens: int32 ``[total]``, memory-mapped.
        mask: bool ``[total]``, memory-mapped; True where the loss applies.
        offsets: int64 ``[examples + 1]``.
        partitions: Where the table's partitions begin and end among the examples, ascending; None: nobody asked.
    """

    tokens: Ints
    mask: Bools
    offsets: Longs
    partitions: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Longs:
        """Tokens of each example, ``[examples]``."""
        return np.diff(self.offsets)

    @cached_property
    def targets(self) -> Longs:
        """Supervised tokens of each example, ``[examples]``: its first token is never predicted."""
        counted = np.concatenate([[0], np.cumsum(self.mask, dtype=np.int64)])
        begins, ends = self.offsets[:-1], self.offsets[1:]
        return np.asarray(counted[ends] - counted[np.minimum(begins + 1, ends)], dtype=np.int64)

    def example(self, index: int) -> tuple[Ints, Bools]:
        """Return token ids and mask of one example, each ``[length]``."""
        span = slice(self.offsets[index], self.offsets[index + 1])
        return self.tokens[span], self.mask[span]

    def between(self, begin: int, end: int) -> Shards:
        """Return the examples ``begin:end`` alone; nothing is copied but their offsets."""
        first, last = self.offsets[begin], self.offsets[end]
        return Shards(self.tokens[first:last], self.mask[first:last], self.offsets[begin : end + 1] - first)


def write_shards(folder: Path, examples: Iterable[Encoded | None], partitions: Sequence[int] | None = None) -> Shards:
    """Write ``examples``, and where partitions begin and end among them; open them again.

    Args:
        folder: Where; what was there is replaced.
        examples: One a row; None: the row was dropped.
        partitions: Where the partitions begin and end among the rows; the manifest counts what is left of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    offsets, dropped = array("q", [0]), array("q")
    with (folder / "tokens.bin").open("wb") as tokens, (folder / "mask.bin").open("wb") as mask:
        for row, example in enumerate(examples):
            if example is None:
                dropped.append(row)
                continue
            tokens.write(array("i", example.ids).tobytes())
            mask.write(bytes(example.mask))
            offsets.append(offsets[-1] + len(example.ids))
    (folder / "offsets.bin").write_bytes(offsets.tobytes())
    bounds = partitions and [bound - bisect_left(dropped, bound) for bound in partitions]
    manifest = {"examples": len(offsets) - 1, "tokens": offsets[-1], "partitions": bounds}
    write_json(folder / "manifest.json", manifest)
    return open_shards(folder)


def open_shards(folder: Path) -> Shards:
    """Map the arrays of a shard folder whose manifest says that it is whole."""
    manifest = read_json(folder / "manifest.json")

    def mapped(name: str, dtype: type[np.generic], length: int) -> npt.NDArray[np.generic]:
        if not length:  # an empty file cannot be mapped
            return np.zeros(0, dtype)
        return np.memmap(folder / name, dtype=dtype, mode="r", shape=(length,))

    total, examples = int(manifest["tokens"]), int(manifest["examples"])
    return Shards(
        tokens=mapped("tokens.bin", np.int32, total),  # type: ignore[arg-type]
        mask=mapped("mask.bin", np.bool_, total),  # type: ignore[arg-type]
        offsets=np.fromfile(folder / "offsets.bin", dtype=np.int64, count=examples + 1),
        partitions=manifest["partitions"],
    )
