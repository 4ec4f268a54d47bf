"""From a cell's keys to a running job: everything that can be wrong is found before anything exists."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from byzerllm_adapters import registry
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.model_folder import check_model_folder, check_tokenizer_path
from byzerllm_adapters.parameters import read

from . import recipe
from .check_model import check_model
from .corpus import (
    EVAL_ROWS_FILE,
    ROWS_FILE,
    columns_of,
    is_dataset,
    keep_partitions,
    keep_rows,
    kept_rows,
    table_rows,
)
from .data_files import format_of_files
from .deepspeed_config import check_batch_size
from .device import check_device
from .elsewhere import check_beginning
from .job_folder import JobFolder
from .job_request import JobRequest
from .loop_settings import LoopSettings, loop_settings
from .mirror import Mirror
from .object_store import is_remote, working_folder
from .parts import Row
from .placement import placement
from .trackers import check_tracker
from .train_parameters import TrainParameters, methods

if TYPE_CHECKING:
    import pyarrow as pa

CHECKED_ROWS = 100_000
"""The cell looks at this many rows before it returns; tokenising looks at all of them."""


def submit(
    parameters: Mapping[str, Any],
    *,
    owner: str,
    workers: int = 1,
    num_cpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    table: pa.Table | Any = None,
    partitions: Sequence[int] | None = None,
    eval_table: pa.Table | Any = None,
    get_model: Callable[[], Any] | None = None,
    driven: bool = False,
) -> JobFolder:
    """Check a job, write its folder and start its coordinator.

    Args:
        parameters: The keys of the cell, in the language's spelling.
        owner: Who asks; part of a generated name.
        workers: Ranks: one GPU each, or CPU workers where the cluster has no GPU.
        num_cpus: CPUs that Ray reserves for each worker; None: what leaves room for a deployment.
        resources: Custom Ray resources of each worker.
        table: The rows, in place of ``localDataDir``: an Arrow table or a Ray Dataset, read batch by batch.
        partitions: How many of the rows each partition has, for ``keepPartitionNum``; None: all are in one.
        eval_table: The rows of ``evalTable``, likewise.
        get_model: Builds the model in each worker, in place of ``localModelDir``'s weights (sfft only).
        driven: The caller starts the workers itself.

    Raises:
        ByzerError: anything that would keep the job from running; nothing was started or written then.
    """
    train = read(TrainParameters, parameters)
    checked = check_request(
        train, workers, table=table, partitions=partitions, eval_table=eval_table, get_model=get_model
    )
    name = train.name or f"{train.method}-{_plain(owner)}-{time.strftime('%Y%m%d-%H-%M-%S')}"
    request = JobRequest(
        parameters=_kept(train),
        owner=owner,
        driven=driven,
        **placement(workers, num_cpus, dict(resources or {}), one_node=train.optimization.one_node),
    )
    check_device(checked.settings, gpu=request.gpu)
    folder = JobFolder(working_folder(train.local_path_prefix) / name)
    _refuse_running(name)
    _refuse_copied(folder, train.local_path_prefix)
    folder.create(request.as_record())
    try:
        if table is not None:
            _keep(train, folder, table, ROWS_FILE, "inputTable")
        if checked.partitions is not None:
            keep_partitions(folder, checked.partitions)
        if eval_table is not None:
            _keep(train, folder, eval_table, EVAL_ROWS_FILE, "evalTable")
        if get_model is not None:
            _keep_function(folder, get_model)
        from .coordinator import start_coordinator

        start_coordinator(str(folder.root))
    except BaseException:
        shutil.rmtree(folder.root)
        raise
    print(f"Data format: {checked.format}")
    return folder


class Checked(NamedTuple):
    """What `check_request` found.

    Attributes:
        settings: The loop's numbers.
        partitions: How many rows each partition has that a rank gets whole; None: rows are shared equally.
        format: Of the rows.
    """

    settings: LoopSettings
    partitions: Sequence[int] | None
    format: str


def check_request(
    train: TrainParameters,
    workers: int,
    *,
    table: pa.Table | Any,
    partitions: Sequence[int] | None,
    eval_table: pa.Table | Any,
    get_model: Callable[[], Any] | None = None,
) -> Checked:
    """Check what needs no cluster; the arguments are those of `submit`.

    Raises:
        ByzerError: anything that would keep the job from running.
    """
    registry.check_name(train.family)
    settings = loop_settings(train)  # refuses contradictions
    if settings.resume_from is not None:
        check_beginning(train, settings)
    if get_model is None:
        check_model(train)
    elif not train.sfft.tokenizer_path:
        check_model_folder(train.local_model_dir)
    if train.sfft.tokenizer_path:
        check_tokenizer_path(train.sfft.tokenizer_path)
    check_batch_size(train.deepspeed_config or {}, settings.rows, settings.accumulation, workers)
    kind = _check_data(train, table)
    sizes = _own_partitions(train, table, partitions, workers)
    _check_eval_data(train, eval_table)
    check_tracker(settings.report_to)
    return Checked(settings, sizes, kind)


def _check_data(train: TrainParameters, table: pa.Table | Any) -> str:
    """Refuse data that the method cannot train on, and return its format; of files only the first rows are read."""
    if table is None:
        return format_of_files(train.local_data_dir, recipe.find(train.method).format_of)
    return _check_table(train, table, "inputTable")


def _check_eval_data(train: TrainParameters, table: pa.Table | Any) -> None:
    """Refuse a table that the method cannot evaluate on, and the name of one that did not come along."""
    if table is not None:
        _check_table(train, table, "evalTable")
    elif train.eval_table is not None:
        do = f'give the table itself as eval_table, or write {train.method}.eval_ratio="0.1"'
        raise ByzerError(f"evalTable={train.eval_table!r} names a table that did not come with the job", do=do)


def _check_table(train: TrainParameters, table: pa.Table | Any, key: str) -> str:
    """Refuse a table that does not fit the method, and return its format; a Dataset's rows are read once, by `_keep`.

    Raises:
        ByzerError: why it does not fit; the error names the key that gave it.
    """
    try:
        if not is_dataset(table) and not table.num_rows:
            raise _no_rows()
        kind = recipe.find(train.method).format_of(columns_of(table))
        if not is_dataset(table):
            _check_rows(train, table_rows(table), kind)
    except ByzerError as error:
        raise _from(key, error) from None
    return kind


def _keep(train: TrainParameters, folder: JobFolder, table: pa.Table | Any, file: str, key: str) -> None:
    """Store a table in the job's folder; the rows of a Dataset are looked at there.

    Raises:
        ByzerError: a Dataset's rows do not fit.
    """
    try:
        keep_rows(folder, table, file)
        if is_dataset(table):
            if next(kept_rows(folder, file), None) is None:
                raise _no_rows()
            _check_rows(train, kept_rows(folder, file), recipe.find(train.method).format_of(columns_of(table)))
    except ByzerError as error:
        raise _from(key, error) from None


def _check_rows(train: TrainParameters, rows: Iterable[Row], kind: str) -> None:
    """Refuse rows that do not fit, or where such are dropped, data of which none fits."""
    drop = train.optimization.on_bad_row == "drop"
    looked_at = rows if drop else islice(rows, CHECKED_ROWS)  # one that fits ends the look where others are dropped
    recipe.find(train.method).check(looked_at, kind, drop=drop)


def _from(key: str, error: ByzerError) -> ByzerError:
    """Return an error with the key whose data it is about."""
    return ByzerError(error.what, where=", ".join(filter(None, (f'in "{key}"', error.where))), do=error.do)


def _no_rows() -> ByzerError:
    return ByzerError("the table has no rows", do="give a table with at least one row")


def _own_partitions(
    train: TrainParameters, table: pa.Table | Any, partitions: Sequence[int] | None, workers: int
) -> Sequence[int] | None:
    """Return the sizes of the partitions that ranks get whole; None: rows are shared equally.

    Raises:
        ByzerError: ``keepPartitionNum`` with files, or with fewer partitions than workers.
    """
    if not train.keep_partition_num:
        return None
    if table is None or is_dataset(table):
        what = "files" if table is None else "a Ray Dataset"
        raise ByzerError(
            f"keepPartitionNum keeps the partitions of a table, and this job reads {what}",
            where='in "keepPartitionNum"',
            do=f"make a table of {what} and give it as inputTable, or leave keepPartitionNum out",
        )
    sizes = [table.num_rows] if partitions is None else partitions
    assert sum(sizes) == table.num_rows
    if len(sizes) < workers:
        raise ByzerError(
            f"{workers} workers, and the table has {len(sizes)} partition{'s' * (len(sizes) > 1)}: "
            "with keepPartitionNum each worker needs one of its own",
            where='in "keepPartitionNum"',
            do=f'run {train.input_table or "t"} as TableRepartition.`` where partitionNum="{workers}" as u; '
            "or leave keepPartitionNum out",
        )
    return sizes


def _plain(owner: str) -> str:
    """Return an owner's name as part of a folder's and an actor's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", owner)


def _kept(train: TrainParameters) -> dict[str, Any]:
    """Return the keys that were given, as ``job.json`` holds them.

    By their declared names, and with absolute paths: workers do not share the notebook's working folder.
    """
    given: dict[str, Any] = train.model_dump(mode="json", by_alias=True, exclude_unset=True)
    paths = [(given, "localModelDir"), (given, "localDataDir"), (given.get("sfft", {}), "tokenizer_path")]
    paths += [(given.get(method, {}), "resume_from_checkpoint") for method in methods()]
    for group, key in paths:
        if group.get(key):
            group[key] = str(Path(group[key]).expanduser().absolute())
    return given


def _refuse_running(name: str) -> None:
    """Two jobs of one name would be two actors of one name."""
    import ray

    from .gang import NAMESPACE

    try:
        ray.get_actor(name, NAMESPACE)
    except ValueError:
        return
    raise ByzerError(f"a job named {name!r} is running on this cluster", do=f'see it with "%byzerllm attach {name}"')


def _refuse_copied(folder: JobFolder, prefix: str) -> None:
    """Refuse a name that a job at the address has, which may have been started elsewhere."""
    address = f"{prefix.rstrip('/')}/{folder.name}"
    if is_remote(prefix) and Mirror(folder, address).exists():
        do = f'choose another name; "%byzerllm resume {address}" fetches it and goes on'
        raise ByzerError(f"a job named {folder.name!r} exists already at {prefix}", do=do)


def _keep_function(folder: JobFolder, function: Callable[[], Any]) -> None:
    """Pickle a notebook's function by value, so that workers need no module of it."""
    from ray import cloudpickle

    from .pretrain import GET_MODEL_FILE

    (folder.root / GET_MODEL_FILE).write_bytes(cloudpickle.dumps(function))
