"""A job's rows -> token shards on disk: those to train on, and those that are held out to evaluate on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from byzerllm_adapters.conversations import Encoded
from byzerllm_adapters.errors import ByzerError

from .corpus import data_format, eval_format, eval_rows, partitions, rows
from .data_files import Row
from .recipe import Job, find
from .shards import Longs, Shards, open_shards, write_shards

Encode = Callable[[Iterable[Row], str], Iterator[Encoded | None]]
"""Takes rows and their format; None stands for a row that was dropped."""


def tokenise(job: Job, encode: Encode, per_row: int = 1) -> tuple[Shards, Shards | None]:
    """Write the job's shards and return them: to train on, and to evaluate on (None: nothing is held out).

    The shards to train on are written last: where they are, all is there.

    Args:
        job: Whose rows are read.
        encode: Makes examples of rows.
        per_row: How many a row gives, or as many None. They follow one another, and stay together.

    Raises:
        ByzerError: a row that does not fit, or too few rows to hold any out.
    """
    folder, train = job.folder, job.request.train
    kind_of = find(train.method).format_of
    kind, bounds = data_format(folder, train.local_data_dir, kind_of), partitions(folder)
    bounds = bounds and [per_row * bound for bound in bounds]
    encoded, apart = encode(rows(folder, train.local_data_dir), kind), eval_rows(folder)
    if apart is not None:
        held_out = write_shards(folder.held_out, encode(apart, eval_format(folder, kind_of)))
        return write_shards(folder.shards, encoded, bounds), held_out
    share = train.optimization.eval_ratio
    if not share:
        return write_shards(folder.shards, encoded, bounds), None
    together = write_shards(folder.data / "all", encoded, bounds)
    chosen = _chosen(together, share, job.request.loop.data_seed, per_row)
    rest = np.setdiff1d(np.arange(len(together)), chosen)
    held_out = write_shards(folder.held_out, _examples(together, chosen))
    left = None if together.partitions is None else np.searchsorted(rest, together.partitions).tolist()
    kept = write_shards(folder.shards, _examples(together, rest), left)
    shutil.rmtree(folder.data / "all")
    return kept, held_out


def held_out_shards(job: Job) -> Shards | None:
    """Return the shards to evaluate on; None: there are none."""
    folder = job.folder.held_out
    return open_shards(folder) if folder.exists() else None


def _chosen(shards: Shards, share: float, seed: int, per_row: int) -> Longs:
    """Return the examples of a random share of the rows with something to learn, ascending."""
    usable = np.flatnonzero((shards.targets > 0).reshape(-1, per_row).all(axis=1))
    count = max(1, round(share * len(usable)))
    if count >= len(usable):
        raise ByzerError(
            f"nothing can be held out of {len(usable)} row{'s' * (len(usable) != 1)} (documents)",
            where=f"eval_ratio={share:g}",
            do="give more rows, a smaller eval_ratio, or evalTable",
        )
    # not [seed, epoch], the generator that decides the data order
    found = np.sort(np.random.default_rng([seed, 0, 1]).choice(usable, count, replace=False))
    return np.asarray(found[:, None] * per_row + np.arange(per_row), dtype=np.int64).reshape(-1)


def _examples(shards: Shards, indices: Longs) -> Iterator[Encoded]:
    for index in indices:
        ids, mask = shards.example(int(index))
        yield Encoded(ids.tolist(), mask.tolist())
