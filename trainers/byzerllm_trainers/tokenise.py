"""A job's rows -> token shards on disk: those to train on, and those that are held out to evaluate on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from byzerllm_adapters.conversations import Encoded
from byzerllm_adapters.errors import ByzerError

from .corpus import eval_rows, partitions, rows
from .recipe import Job
from .shards import Longs, Shards, open_shards, write_shards

Encode = Callable[[Iterator[Mapping[str, Any]]], Iterator[Encoded]]


def tokenise(job: Job, encode: Encode, per_row: int = 1) -> tuple[Shards, Shards | None]:
    """Write the job's shards and return them: to train on, and to evaluate on (None: nothing is held out).

    The shards to train on are written last: where they are, all is there.

    Args:
        job: Whose rows are read.
        encode: Makes examples of rows.
        per_row: How many a row gives. They follow one another, and stay together.

    Raises:
        ByzerError: a row that does not fit, or too few rows to hold any out.
    """
    folder, train = job.folder, job.request.train
    all_rows, bounds = rows(folder, train.local_data_dir), partitions(folder)
    bounds = bounds and [per_row * bound for bound in bounds]
    apart = eval_rows(folder)
    if apart is not None:
        held_out = write_shards(folder.held_out, encode(apart))
        return write_shards(folder.shards, encode(all_rows), bounds), held_out
    share = train.optimization.eval_ratio
    if not share:
        return write_shards(folder.shards, encode(all_rows), bounds), None
    together = write_shards(folder.data / "all", encode(all_rows))
    chosen = _chosen(together, share, job.request.loop.data_seed, per_row)
    rest = np.setdiff1d(np.arange(len(together)), chosen)
    held_out = write_shards(folder.held_out, _examples(together, chosen))
    bounds = bounds and np.searchsorted(rest, bounds).tolist()
    kept = write_shards(folder.shards, _examples(together, rest), bounds)
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
