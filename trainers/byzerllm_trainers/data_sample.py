"""A job's data, or a part of it that is tokenised in a second or two, prepared as the job itself prepares it."""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from . import recipe
from .corpus import arrow_schema, dataset_batches, is_dataset, keep_partitions, keep_rows
from .data_files import SAMPLE, data_files
from .job_folder import JobFolder
from .memory_trace import BatchShape
from .packing import IGNORED, Batch, Plan, Step
from .parts import Row, file_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from .job_request import JobRequest
    from .train_parameters import TrainParameters

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


@dataclass(frozen=True)
class Sample:
    """Rows to look at in place of a job's data.

    Attributes:
        table: Rows of its table; None: it has none.
        rows: Rows of its files; None: it has none, or they are small and are read as they are.
        share: How much of the data these are; 1: all of it.
    """

    table: pa.Table | None
    rows: Sequence[Row] | None
    share: float


@contextmanager
def prepared(request: JobRequest, drawn: Sample, partitions: Sequence[int] | None) -> Iterator[recipe.Job]:
    """Make the job in a temporary folder, with the data that it is to train on; nothing is started.

    Args:
        request: The job.
        drawn: Its data.
        partitions: Sizes of the partitions that ranks get whole; a part of the data has none.
    """
    with tempfile.TemporaryDirectory(prefix="byzer-estimate-") as place:
        folder = JobFolder(Path(place) / "job")
        if drawn.rows is not None:
            files = Path(place) / "data"
            _write(drawn.rows, files)
            request = replace(request, parameters=request.parameters | {"localDataDir": str(files)})
        folder.create(request.as_record())
        if drawn.table is not None:
            keep_rows(folder, drawn.table)
        if partitions is not None and drawn.share == 1.0:
            keep_partitions(folder, partitions)
        yield recipe.Job(folder, request, local=True)


def sample(train: TrainParameters, table: pa.Table | Any, kind: str) -> Sample:
    """Return rows to look at in place of all.

    Small data is taken as it is. Of a larger table rows are drawn at random, of a Ray Dataset the first are taken; of
    a larger folder files are read in a random order, until there is `ENOUGH`.

    Args:
        train: The job's keys.
        table: Its table, or a Ray Dataset; None: it has files.
        kind: The format of its rows.

    Raises:
        ByzerError: a file that cannot be read, or a row in it.
    """
    if table is None:
        return _of_files(train, kind)
    if is_dataset(table):
        return _beginning(table)
    if table.nbytes <= ENOUGH:
        return Sample(table, None, 1.0)
    count = max(1, table.num_rows * ENOUGH // table.nbytes)
    chosen = sorted(random.Random(0).sample(range(table.num_rows), count))
    return Sample(table.take(chosen), None, count / table.num_rows)


def _beginning(dataset: Any) -> Sample:
    import pyarrow as pa

    batches: list[pa.Table] = []
    for batch in dataset_batches(dataset, arrow_schema(dataset)):
        batches.append(batch)
        if sum(each.nbytes for each in batches) >= ENOUGH:
            break
    if not batches:
        raise ByzerError("the table has no rows", where='in "inputTable"', do="give a table with at least one row")
    table = pa.concat_tables(batches)
    return Sample(table, None, table.num_rows / dataset.count())


def _of_files(train: TrainParameters, kind: str) -> Sample:
    files = data_files(train.local_data_dir)
    total = sum(_size(path) for path in files)
    if total <= ENOUGH:
        return Sample(None, None, 1.0)
    random.Random(0).shuffle(files)
    found: list[Row] = []
    read = 0
    for path in files:
        for row in file_rows(path):
            if not isinstance(row.values, ByzerError):
                found.append(row)
            elif train.optimization.on_bad_row == "error":
                raise ByzerError(row.values.what, where=f"{row.place} (format {kind})", do=row.values.do)
            read += _size_of_row(row, path)
            if read >= ENOUGH:
                return Sample(None, found, min(1.0, read / total))
    return Sample(None, found, 1.0)


def _size(path: Path) -> int:
    """Return a file's bytes; of a parquet file, which is compressed, about those of its rows as `_size_of_row` counts.

    Raises:
        ByzerError: it is not what its name says.
    """
    first = [_size_of_row(row, path) for row in islice(file_rows(path), SAMPLE)] if path.suffix == ".parquet" else []
    if not first:
        return path.stat().st_size
    import pyarrow.parquet as pq

    rows: int = pq.read_metadata(path).num_rows
    return rows * sum(first) // len(first)


def _size_of_row(row: Row, path: Path) -> int:
    """Return about as many bytes as a row has in its file: only JSON names the columns in each."""
    if path.suffix in (".json", ".jsonl") or isinstance(row.values, ByzerError):
        return len(str(row.values).encode())
    return sum(len(str(value).encode()) for value in row.values.values())


def _write(rows: Sequence[Row], folder: Path) -> None:
    """Write rows of files as JSON lines, row n in line n + 1."""
    folder.mkdir()
    lines = (json.dumps(row.values, default=str, ensure_ascii=False) for row in rows)
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")


def _at_its_place(error: ByzerError, rows: Sequence[Row] | None) -> ByzerError:
    """Return an error about a row that was drawn with the place of that row in the user's files."""
    match = re.search(r", line (\d+)(?P<format> \(format \w+\))?$", error.where or "")
    if rows is None or match is None:
        return error
    place = rows[int(match[1]) - 1].place
    return ByzerError(error.what, where=place + (match["format"] or ""), do=error.do)


def look(job: recipe.Job, drawn: Sample) -> Data:
    """Tokenise a job's (sampled) rows and return what all of its data comes to.

    The largest micro-batch is that of the steps the run will do. Of a sample, rows are taken to be as long as they
    may be (``sft.max_seq_length``): the longest row of all is likely not in it.

    Raises:
        ByzerError: as the recipe's own ``prepare``.
    """
    method, share = recipe.find(job.request.train.method), drawn.share
    try:
        method.prepare(job)
    except ByzerError as error:
        raise _at_its_place(error, drawn.rows) from None
    plan = method.plan(job)
    scaled = _Scaled(plan, share)
    total = recipe.total_steps(method, job, scaled)
    epoch = range(plan.steps_per_epoch)
    batches = _batches(plan, epoch, job.request.workers)
    shape = shape_of(plan, epoch[:total] if share == 1.0 else epoch, job.request.workers)
    if share < 1.0:
        limit = _longest(job) - 1
        shape = replace(shape, width=limit, supervised=round(shape.supervised * limit / shape.width))
    tokens, targets = sum(plan.counts(index)[1] for index in epoch), sum(map(_supervised, batches))
    return Data(
        tokens=round(tokens / share),
        targets=round(targets / share),
        epoch_steps=scaled.steps_per_epoch,
        total_steps=total,
        shape=shape,
        width=tokens / sum(len(batch.input_ids) for batch in batches),
        share=share,
    )


def shape_of(plan: Plan, steps: Iterable[int], ranks: int) -> BatchShape:
    """Return the largest micro-batch of some steps, in each direction."""
    batches = _batches(plan, steps, ranks)
    return BatchShape(
        rows=max(batch.input_ids.shape[0] for batch in batches),
        width=max(batch.input_ids.shape[1] for batch in batches),
        supervised=max(1, *map(_supervised, batches)),
        packed=any(batch.position_ids is not None for batch in batches),
    )


def _batches(plan: Plan, steps: Iterable[int], ranks: int) -> list[Batch]:
    return [batch for step in steps for rank in range(ranks) for batch in plan.step(step, rank).batches]


def _supervised(batch: Batch) -> int:
    return int((batch.labels != IGNORED).sum())


def _longest(job: recipe.Job) -> int:
    """Return the most tokens that a row may have: one more than its inputs, which alone fill a packed one."""
    train = job.request.train
    if train.method == "sfft":
        return train.sfft.max_length + 1
    return train.fine_tuning.max_seq_length + train.packs


class _Scaled:
    """A plan of a sample that has as many steps as all data would."""

    def __init__(self, plan: Plan, share: float) -> None:
        self._plan = plan
        self.steps_per_epoch = max(1, round(plan.steps_per_epoch / share))

    def step(self, index: int, rank: int) -> Step:
        return self._plan.step(index % self._plan.steps_per_epoch, rank)

    def counts(self, index: int) -> tuple[int, int]:
        return self._plan.counts(index % self._plan.steps_per_epoch)
