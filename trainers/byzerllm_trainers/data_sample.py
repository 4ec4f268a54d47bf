"""A job's data, or a part of it that is tokenised in a second or two, prepared as the job itself prepares it."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import recipe
from .corpus import data_files, keep_partitions, keep_rows, rows_of_file
from .job_folder import JobFolder
from .memory_trace import BatchShape
from .packing import IGNORED, Plan, Step

if TYPE_CHECKING:
    import pyarrow as pa

    from .job_request import JobRequest

ENOUGH = 4_000_000
"""Bytes of rows that are tokenised; a fast tokenizer does about as many in a second."""


@dataclass(frozen=True)
class Data:
    """What a job's data comes to.

    Attributes:
        tokens: Real tokens of an epoch's steps.
        targets: Supervised tokens of the same.
        epoch_steps: Steps in which all data is seen once.
        total_steps: Steps of the whole run.
        shape: The largest micro-batch, in each direction.
        width: Mean tokens in a row, without padding.
        share: How much of the data was read; 1 when all of it was, and nothing is extrapolated.
    """

    tokens: int
    targets: int
    epoch_steps: int
    total_steps: int
    shape: BatchShape
    width: float
    share: float

    @property
    def total_tokens(self) -> int:
        """Real tokens of the whole run."""
        return round(self.tokens * self.total_steps / self.epoch_steps)


@contextmanager
def prepared(request: JobRequest, table: pa.Table | None, partitions: Sequence[int] | None) -> Iterator[recipe.Job]:
    """Make the job in a temporary folder, with the table that it is to train on; nothing is started."""
    with tempfile.TemporaryDirectory(prefix="byzer-estimate-") as place:
        folder = JobFolder(Path(place) / "job")
        folder.create(request.as_record())
        if table is not None:
            keep_rows(folder, table)
        if partitions is not None:
            keep_partitions(folder, partitions)
        yield recipe.Job(folder, request)


def sample(data_dir: str | None, table: pa.Table | None) -> tuple[pa.Table | None, float]:
    """Return rows to look at in place of all, and which share of the data they are.

    Small data is returned as it is: the table, or None for a folder, with a share of 1. Of a larger table rows are
    drawn at random; of a larger folder files are read in a random order, until there is `ENOUGH`.
    """
    import pyarrow as pa

    chance = random.Random(0)
    if table is not None:
        if table.nbytes <= ENOUGH:
            return table, 1.0
        count = max(1, table.num_rows * ENOUGH // table.nbytes)
        return table.take(sorted(chance.sample(range(table.num_rows), count))), count / table.num_rows
    files = data_files(data_dir)
    total = sum(path.stat().st_size for path in files)
    if total <= ENOUGH:
        return None, 1.0
    chance.shuffle(files)
    found: list[Mapping[str, Any]] = []
    read = 0
    for path in files:
        for row in rows_of_file(path):
            found.append(row)
            read += len(str(row).encode())
            if read >= ENOUGH:
                return pa.Table.from_pylist(found), min(1.0, read / total)
    return pa.Table.from_pylist(found), 1.0


def look(job: recipe.Job, share: float) -> Data:
    """Tokenise a job's (sampled) rows and return what all of its data comes to.

    The largest micro-batch is that of the steps the run will do. Of a sample, rows are taken to be as long as they
    may be (``sft.max_seq_length``): the longest row of all is likely not in it.

    Raises:
        ByzerError: as the recipe's own ``prepare``.
    """
    method = recipe.find(job.request.train.method)
    method.prepare(job)
    plan = method.plan(job)
    scaled = _Scaled(plan, share)
    total = recipe.total_steps(method, job, scaled)
    seen = [plan.counts(index) for index in range(plan.steps_per_epoch)]
    looked = range(min(total, plan.steps_per_epoch) if share == 1.0 else plan.steps_per_epoch)
    shape = shape_of(plan, looked, job.request.workers)
    if share < 1.0:
        limit = _longest(job) - 1
        shape = BatchShape(shape.rows, limit, round(shape.supervised * limit / shape.width))
    epoch, targets, tokens = len(seen), sum(one for one, _ in seen), sum(one for _, one in seen)
    return Data(
        tokens=round(tokens / share),
        targets=round(targets / share),
        epoch_steps=scaled.steps_per_epoch,
        total_steps=total,
        shape=shape,
        width=tokens / (epoch * job.request.loop.rows * job.request.loop.accumulation * job.request.workers),
        share=share,
    )


def shape_of(plan: Plan, steps: Iterable[int], ranks: int) -> BatchShape:
    """Return the largest micro-batch of some steps, in each direction."""
    batches = [batch for step in steps for rank in range(ranks) for batch in plan.step(step, rank).batches]
    return BatchShape(
        rows=max(batch.input_ids.shape[0] for batch in batches),
        width=max(batch.input_ids.shape[1] for batch in batches),
        supervised=max(1, *(int((batch.labels != IGNORED).sum()) for batch in batches)),
    )


def _longest(job: recipe.Job) -> int:
    """Return the most tokens that a row may have; a packed one has one more than its inputs."""
    train = job.request.train
    return train.sft.max_seq_length if train.method == "sft" else train.sfft.max_length + 1


class _Scaled:
    """A plan of a sample that has as many steps as all data would."""

    def __init__(self, plan: Plan, share: float) -> None:
        self._plan = plan
        self.steps_per_epoch = max(1, round(plan.steps_per_epoch / share))

    def step(self, index: int, rank: int) -> Step:
        return self._plan.step(index % self._plan.steps_per_epoch, rank)

    def counts(self, index: int) -> tuple[int, int]:
        return self._plan.counts(index % self._plan.steps_per_epoch)
