"""Token shards: tokenised once, memory-mapped, position-addressable.

A shard folder holds four flat arrays and a manifest that is written last:
``tokens.bin`` (int32), ``mask.bin`` (uint8; 1 where the loss applies), ``offsets.bin`` (int64, one more than there
are examples) and ``dropped.bin`` (int64: which did not fit). Example ``i`` is the slice
``offsets[i]:offsets[i + 1]`` of the first two. Where the table's partitions matter, the manifest says which examples
each holds. It also says what the examples were made of, and why the first row was dropped.
"""

from __future__ import annotations

import shutil
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from byzerllm_adapters.conversations import Encoded
from byzerllm_adapters.errors import ByzerError

from .job_folder import read_json, write_json

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FILES = ("tokens.bin", "mask.bin", "offsets.bin", "dropped.bin")
MANIFEST = "manifest.json"
AT_ONCE = 4096
"""Examples that are in memory at a time."""


@dataclass(frozen=True)
class Shards:
    """Tokenised examples on disk.

    Attributes:
        tokens: int32 ``[total]``, memory-mapped.
        mask: bool ``[total]``, memory-mapped; True where the loss applies.
        offsets: int64 ``[examples + 1]``, memory-mapped.
        partitions: Where the table's partitions begin and end among the examples, ascending; None: nobody asked.
        dropped: int64, which examples there would be besides if their rows did fit, counted among all, ascending.
        why: What was wrong with the first of them, without its place.
    """

    tokens: Ints
    mask: Bools
    offsets: Longs
    partitions: Sequence[int] | None = None
    dropped: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    why: ByzerError | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Longs:
        """Tokens of each example, ``[examples]``."""
        return np.diff(self.offsets)

    @cached_property
    def targets(self) -> Longs:
        """Supervised tokens of each example, ``[examples]``: its first token is never predicted."""
        counts = np.zeros(len(self), np.int64)
        for begin in range(0, len(self), AT_ONCE):  # the running count takes eight times the mask's memory
            end = min(begin + AT_ONCE, len(self))
            counts[begin:end] = _targets(self.between(begin, end))
        return counts

    def example(self, index: int) -> tuple[Ints, Bools]:
        """Return token ids and mask of one example, each ``[length]``."""
        span = slice(self.offsets[index], self.offsets[index + 1])
        return self.tokens[span], self.mask[span]

    def between(self, begin: int, end: int) -> Shards:
        """Return the examples ``begin:end`` alone; nothing is copied but their offsets."""
        first, last = self.offsets[begin], self.offsets[end]
        return Shards(self.tokens[first:last], self.mask[first:last], self.offsets[begin : end + 1] - first)

    def take(self, indices: Longs) -> Shards:
        """Return a copy of these examples alone, in this order."""
        chosen = [self.example(int(index)) for index in indices]
        offsets = np.concatenate([[0], np.cumsum(self.lengths[indices])]).astype(np.int64)
        tokens = np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in chosen)])
        return Shards(tokens, np.concatenate([np.zeros(0, np.bool_), *(mask for _, mask in chosen)]), offsets)


def _targets(shards: Shards) -> Longs:
    counted = np.concatenate([[0], np.cumsum(shards.mask, dtype=np.int64)])
    begins, ends = shards.offsets[:-1], shards.offsets[1:]
    return np.asarray(counted[ends] - counted[np.minimum(begins + 1, ends)], dtype=np.int64)


class ShardWriter:
    """Appends examples to the arrays of a shard folder, many at a time.

    Attributes:
        examples: How many there are so far.
        tokens: How many of them all.
        partitions: What the manifest is to say of them.
        dropped: As of `Shards`, so far.
        why: Likewise.
    """

    def __init__(self, tokens: BinaryIO, mask: BinaryIO, offsets: BinaryIO) -> None:
        self._files = tokens, mask, offsets
        self.examples = self.tokens = 0
        self.partitions: Sequence[int] | None = None
        self.dropped = array("q")
        self.why: ByzerError | None = None
        offsets.write(bytes(8))

    def add(self, rows: Sequence[Encoded | ByzerError]) -> None:
        """Append what rows became; one with an error is dropped."""
        errors = [(number, row) for number, row in enumerate(rows) if isinstance(row, ByzerError)]
        examples = [row for row in rows if not isinstance(row, ByzerError)]
        lengths = np.fromiter((len(example.ids) for example in examples), np.int64, len(examples))
        total = int(lengths.sum())
        tokens = np.fromiter(chain.from_iterable(example.ids for example in examples), np.int32, total)
        mask = np.frombuffer(b"".join(bytes(example.mask) for example in examples), np.bool_)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        dropped = np.array([number for number, _ in errors], np.int64)
        self.append(Shards(tokens, mask, offsets, None, dropped, errors[0][1] if errors else None))

    def append(self, shards: Shards) -> None:
        """Append the examples of other shards, and the rows that they dropped."""
        rows = self.examples + len(self.dropped)
        self.dropped.extend((shards.dropped + rows).tolist())
        self.why = self.why or shards.why
        tokens, mask, offsets = self._files
        tokens.write(np.ascontiguousarray(shards.tokens, np.int32).data)
        mask.write(np.ascontiguousarray(shards.mask, np.bool_).data)
        offsets.write((shards.offsets[1:] + self.tokens).data)
        self.examples += len(shards)
        self.tokens += len(shards.tokens)

    def left(self, bounds: Sequence[int]) -> list[int]:
        """Return where partitions begin and end among the examples.

        Args:
            bounds: Where they do among the rows, the dropped ones included.
        """
        return [bound - bisect_left(self.dropped, bound) for bound in bounds]


@contextmanager
def shard_writer(folder: Path, content: str | None = None) -> Iterator[ShardWriter]:
    """Write a shard folder; it is whole, with its manifest, when the block ends without an error.

    Files that were there before are unlinked, never written to: another job may share them.

    Args:
        folder: Made anew.
        content: What the examples were made of, see `reuse`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    *names, dropped = FILES
    with ExitStack() as files:
        writer = ShardWriter(*(files.enter_context((folder / name).open("wb")) for name in names))
        yield writer
    (folder / dropped).write_bytes(writer.dropped.tobytes())
    manifest = {
        "examples": writer.examples,
        "tokens": writer.tokens,
        "content": content,
        "partitions": writer.partitions and list(writer.partitions),
        "dropped": len(writer.dropped),
        "why": writer.why and {"what": writer.why.what, "do": writer.why.do},
    }
    write_json(folder / MANIFEST, manifest)


def write_shards(folder: Path, rows: Iterable[Encoded | ByzerError], partitions: Sequence[int] | None = None) -> Shards:
    """Write what rows became, and open it again.

    Args:
        folder: Where; what was there is replaced.
        rows: One with an error is dropped.
        partitions: Where the partitions begin and end among the rows; the manifest counts what is left of them.
    """
    remaining = iter(rows)
    with shard_writer(folder) as writer:
        while batch := list(islice(remaining, AT_ONCE)):
            writer.add(batch)
        writer.partitions = partitions and writer.left(partitions)
    return open_shards(folder)


def open_shards(folder: Path) -> Shards:
    """Map the arrays of a shard folder whose manifest says that it is whole."""
    manifest = read_json(folder / MANIFEST)

    def mapped(name: str, dtype: type[np.generic], length: int) -> npt.NDArray[np.generic]:
        if not length:  # an empty file cannot be mapped
            return np.zeros(0, dtype)
        return np.asarray(np.memmap(folder / name, dtype=dtype, mode="r", shape=(length,)))  # plain: quick to slice

    total, examples = int(manifest["tokens"]), int(manifest["examples"])
    return Shards(
        tokens=mapped("tokens.bin", np.int32, total),  # type: ignore[arg-type]
        mask=mapped("mask.bin", np.bool_, total),  # type: ignore[arg-type]
        offsets=mapped("offsets.bin", np.int64, examples + 1),  # type: ignore[arg-type]
        partitions=manifest["partitions"],
        dropped=np.fromfile(folder / "dropped.bin", dtype=np.int64, count=int(manifest["dropped"])),
        why=manifest["why"] and ByzerError(**manifest["why"]),
    )
