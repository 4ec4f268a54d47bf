"""From a cell's keys to a running job: everything that can be wrong is found before anything exists."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters import registry
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.model_folder import check_model_folder
from byzerllm_adapters.parameters import read
from byzerllm_adapters.rows import detect_format

from .checkpoint import find_checkpoint
from .corpus import EVAL_ROWS_FILE, data_files, keep_partitions, keep_rows, messages_of
from .device import check_device
from .job_folder import JobFolder
from .job_request import JobRequest
from .loop_settings import LoopSettings, loop_settings
from .train_parameters import TrainParameters

if TYPE_CHECKING:
    import pyarrow as pa

RESERVED_SHARE = 0.75
"""Share of a node's CPUs that a job's CPU workers reserve: the rest lets a deployed model answer meanwhile."""

LEAST_CPUS = 0.5
"""What a CPU worker reserves at least; more workers than fit at this rate are refused."""


def submit(
    parameters: Mapping[str, Any],
    *,
    owner: str,
    workers: int = 1,
    num_cpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    table: pa.Table | None = None,
    partitions: Sequence[int] | None = None,
    eval_table: pa.Table | None = None,
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
        table: The rows, in place of ``localDataDir``.
        partitions: How many of the rows each partition has, for ``keepPartitionNum``; None: all are in one.
        eval_table: The rows of ``evalTable``.
        get_model: Builds the model in each worker, in place of ``localModelDir``'s weights (sfft only).
        driven: The caller starts the workers itself.

    Raises:
        ByzerError: anything that would keep the job from running; nothing was started or written then.
    """
    train = read(TrainParameters, parameters)
    settings, sizes = check_request(
        train, workers, table=table, partitions=partitions, eval_table=eval_table, get_model=get_model
    )
    name = train.name or f"{train.method}-{_plain(owner)}-{time.strftime('%Y%m%d-%H-%M-%S')}"
    request = JobRequest(
        parameters=_kept(train),
        owner=owner,
        driven=driven,
        **_placement(workers, num_cpus, dict(resources or {}), one_node=train.method == "sft"),
    )
    check_device(settings, gpu=request.gpu)
    folder = JobFolder(Path(train.local_path_prefix) / name)
    _refuse_running(name)
    folder.create(request.as_record())
    try:
        if table is not None:
            keep_rows(folder, table)
        if sizes is not None:
            keep_partitions(folder, sizes)
        if eval_table is not None:
            keep_rows(folder, eval_table, EVAL_ROWS_FILE)
        if get_model is not None:
            _keep_function(folder, get_model)
        from .gang import start_coordinator

        start_coordinator(str(folder.root))
    except BaseException:
        shutil.rmtree(folder.root)
        raise
    return folder


def check_request(
    train: TrainParameters,
    workers: int,
    *,
    table: pa.Table | None,
    partitions: Sequence[int] | None,
    eval_table: pa.Table | None,
    get_model: Callable[[], Any] | None = None,
) -> tuple[LoopSettings, Sequence[int] | None]:
    """Check what needs no cluster; return the loop's numbers, and the partitions that ranks get whole (None: no).

    The arguments are those of `submit`.

    Raises:
        ByzerError: anything that would keep the job from running.
    """
    registry.check_name(train.family)
    settings = loop_settings(train)  # refuses contradictions
    if settings.resume_from is not None:
        find_checkpoint(settings.resume_from)
    if get_model is None or not train.sfft.tokenizer_path:
        check_model_folder(train.local_model_dir)
    _check_data(train, table)
    sizes = _own_partitions(train, table, partitions, workers)
    _check_eval_data(train, eval_table)
    return settings, sizes


def _check_data(train: TrainParameters, table: pa.Table | None) -> None:
    """Refuse a table that the method cannot train on; a folder is only looked at."""
    if table is None:
        data_files(train.local_data_dir)
    else:
        _check_table(train, table, "inputTable")


def _check_eval_data(train: TrainParameters, table: pa.Table | None) -> None:
    """Refuse a table that the method cannot evaluate on, and the name of one that did not come along."""
    if table is not None:
        _check_table(train, table, "evalTable")
    elif train.eval_table is not None:
        do = f'give the table itself as eval_table, or write {train.method}.eval_ratio="0.1"'
        raise ByzerError(f"evalTable={train.eval_table!r} names a table that did not come with the job", do=do)


def _check_table(train: TrainParameters, table: pa.Table, key: str) -> None:
    """Refuse a table whose rows do not fit the method; the error names the key that gave it."""
    try:
        _check_rows(train, table)
    except ByzerError as error:
        place = ", ".join(filter(None, (f'in "{key}"', error.where)))
        raise ByzerError(error.what, where=place, do=error.do) from None


def _check_rows(train: TrainParameters, table: pa.Table) -> None:
    if not table.num_rows:
        raise ByzerError("the table has no rows", do="give a table with at least one row")
    if train.method == "sft":
        kind = detect_format(table.column_names)
        for _ in messages_of(iter(table.to_pylist()), kind):
            pass
    elif "text" not in table.column_names:
        raise ByzerError(
            f'pretraining needs a column "text"; this table has: {", ".join(table.column_names)}',
            do="rename the column, e.g. table.rename(columns={'value': 'text'})",
        )


def _own_partitions(
    train: TrainParameters, table: pa.Table | None, partitions: Sequence[int] | None, workers: int
) -> Sequence[int] | None:
    """Return the sizes of the partitions that ranks get whole; None: rows are shared equally.

    Raises:
        ByzerError: ``keepPartitionNum`` with files, or with fewer partitions than workers.
    """
    if not train.keep_partition_num:
        return None
    if table is None:
        raise ByzerError(
            "keepPartitionNum keeps the partitions of a table, and this job reads files",
            where='in "keepPartitionNum"',
            do="load the files into a table and give it as inputTable, or leave keepPartitionNum out",
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
    paths += [(given.get(method, {}), "resume_from_checkpoint") for method in ("sft", "sfft")]
    for group, key in paths:
        if group.get(key):
            group[key] = str(Path(group[key]).expanduser().absolute())
    return given


def _placement(workers: int, num_cpus: float | None, resources: dict[str, float], *, one_node: bool) -> dict[str, Any]:
    """Decide what each worker reserves and computes with.

    Raises:
        ByzerError: there is no cluster, or it can never place that many.
    """
    import ray

    if not ray.is_initialized():
        raise ByzerError("this process is not connected to a Ray cluster", do="call Session().connect() or ray.init()")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpu = any(node.get("GPU") for node in nodes)
    cores = max(node.get("CPU", 0.0) for node in nodes)
    per_node = workers if one_node else math.ceil(workers / len(nodes))
    cpus = num_cpus or (1.0 if gpu else max(LEAST_CPUS, min(1.0, int(100 * RESERVED_SHARE * cores / per_node) / 100)))
    bundle = {"CPU": cpus, **resources} | ({"GPU": 1.0} if gpu else {})
    room = [min(int(node.get(kind, 0) / need + 1e-9) for kind, need in bundle.items() if need) for node in nodes]
    placeable = max(room) if one_node else sum(room)
    if workers > placeable:
        have = ", ".join(f"{sum(node.get(kind, 0) for node in nodes):g} {kind}" for kind in bundle)
        where = "one node" if one_node else "the cluster"
        raise ByzerError(
            f"{workers} workers asked, {placeable} fit on {where}: each takes "
            + ", ".join(f"{need:g} {kind}" for kind, need in bundle.items()),
            where=f"the cluster has {have} on {len(nodes)} node{'s' * (len(nodes) > 1)}",
            do=f'lower "num_gpus" (setup) to {placeable} or less, or add nodes' if placeable else "add nodes",
        )
    # all cores for the one gang of a CPU machine, unless the user has said how many CPUs a worker takes
    threads = max(1, int(cpus if gpu or num_cpus else cores // per_node))
    return {
        "workers": workers,
        "gpu": gpu,
        "cpus_per_worker": cpus,
        "threads_per_worker": threads,
        "resources": resources,
    }


def _refuse_running(name: str) -> None:
    """Two jobs of one name would be two actors of one name."""
    import ray

    from .gang import NAMESPACE

    try:
        ray.get_actor(name, NAMESPACE)
    except ValueError:
        return
    raise ByzerError(f"a job named {name!r} is running on this cluster", do=f'see it with "%byzerllm attach {name}"')


def _keep_function(folder: JobFolder, function: Callable[[], Any]) -> None:
    """Pickle a notebook's function by value, so that workers need no module of it."""
    from ray import cloudpickle

    from .pretrain import GET_MODEL_FILE

    (folder.root / GET_MODEL_FILE).write_bytes(cloudpickle.dumps(function))
