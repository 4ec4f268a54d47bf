"""``run command as LLM`` for a session: deploy a model, start a training job, or estimate one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import as_strings, read

from .parameters.notes import tell_notes

if TYPE_CHECKING:
    import pyarrow as pa

    from byzerllm_trainers.train_parameters import TrainParameters

    from .cluster.deployments import Deployment
    from .cluster.jobs import Job
    from .estimate_card import EstimateCard
    from .session import Session
    from .tables import Table


def deploy(session: Session, raw: Mapping[str, object]) -> Deployment:
    """Deploy a model and wait until it answers; with ``reconnect``, return the one that runs.

    Raises:
        ByzerError: bad input, no room, or a model that does not load; nothing is left of it then.
    """
    from byzerllm_adapters.infer_parameters import InferParameters
    from byzerllm_adapters.model_folder import check_model_folder
    from byzerllm_adapters.registry import check_name

    from .cluster import deployments

    parameters = read(InferParameters, raw)
    check_name(parameters.pretrained_model_type)
    tell_notes(parameters)
    folder = parameters.local_model_dir
    if folder is not None and not parameters.reconnect:
        _await_model(folder)
        folder = str(check_model_folder(folder))
    session.connect()
    owner, name = session.settings.owner, parameters.udf_name
    running = any(each.name == name for each in deployments.listed(owner))
    if parameters.reconnect and (running or folder is None):
        return deployments.get(name, owner)
    if parameters.reconnect:
        print(f"No model {name} runs to reconnect to: it is deployed now.")
        folder = str(check_model_folder(str(folder)))
    elif running:
        print(f"Model {name} was deployed before: the new one replaces it.")
    keys = as_strings(parameters, raw)
    keys |= {"localModelDir": str(folder), "pretrainedModelType": parameters.pretrained_model_type}
    deployment = deployments.deploy(parameters, keys, sys_conf=session.sys_conf(), owner=owner)
    session.forget(name)  # what was said, was said to another model
    return deployment


def train(session: Session, raw: Mapping[str, object]) -> Job:
    """Start a training job; it goes on by itself.

    Raises:
        ByzerError: bad input, or no room for its workers; nothing was started then.
    """
    from byzerllm_trainers.submit import submit

    from .cluster import jobs

    raw, parameters, tables = _training(session, raw)
    tell_notes(parameters)
    _await_model(parameters.local_model_dir)
    session.connect()
    settings = session.settings
    rows = tables.get("inputTable")
    arrow = {key: table.arrow() for key, table in tables.items()}
    folder = submit(
        raw,
        owner=settings.owner,
        workers=max(1, settings.num_gpus),
        num_cpus=settings.num_cpus,
        resources=settings.resource.model_extra,
        table=arrow.get("inputTable"),
        partitions=None if rows is None else rows.partition_sizes,
        eval_table=arrow.get("evalTable"),
    )
    jobs.remember(folder)
    job = jobs.Job(folder, detached=parameters.detached)
    if parameters.output_table:
        session.tables[parameters.output_table] = job
    return job


def estimate(session: Session, raw: Mapping[str, object]) -> EstimateCard:
    """Estimate what a training job will take. Nothing is started, no cluster either.

    Raises:
        ByzerError: bad input, as `train` says it; a statement that deploys.
    """
    from .parameters import route

    if route(raw) == "infer":
        raise ByzerError("only training is estimated, and this deploys", do='write pretrainedModelType="sft/NAME"')
    raw, _, tables = _training(session, raw)
    rows = tables.get("inputTable")
    arrow = {key: table.arrow() for key, table in tables.items()}
    return _estimated(
        session,
        raw,
        workers=max(1, session.settings.num_gpus),
        table=arrow.get("inputTable"),
        partitions=None if rows is None else rows.partition_sizes,
        eval_table=arrow.get("evalTable"),
    )


def estimate_job(session: Session, job: Job) -> EstimateCard:
    """Estimate a job that there is, from its request and the rows in its folder.

    Raises:
        ByzerError: its model or its data is not there any more.
    """
    import pyarrow.parquet as pq

    from byzerllm_trainers.corpus import EVAL_ROWS_FILE, ROWS_FILE
    from byzerllm_trainers.job_request import read_request

    request = read_request(job.folder)

    def kept(file: str) -> pa.Table | None:
        path = job.folder.data / file
        return pq.read_table(path) if path.exists() else None

    return _estimated(
        session, request.parameters, workers=request.workers, table=kept(ROWS_FILE), eval_table=kept(EVAL_ROWS_FILE)
    )


def _estimated(session: Session, raw: Mapping[str, object], **details: Any) -> EstimateCard:
    from byzerllm_trainers.estimate import estimate

    from .cluster import jobs
    from .cluster.machines import machines
    from .estimate_card import EstimateCard

    found, where = machines(session.settings.ray_address)
    known = [job.folder for job in jobs.listed()]
    return EstimateCard(estimate(raw, found, earlier=known, **details), where)


def _training(
    session: Session, raw: Mapping[str, object]
) -> tuple[dict[str, object], TrainParameters, dict[str, Table]]:
    """Read the keys of a training statement; return them as a job keeps them, checked, and its tables by key.

    Raises:
        ByzerError: bad input.
    """
    from byzerllm_trainers.train_parameters import TrainParameters

    given = {key: raw[key] for key in ("inputTable", "evalTable") if key in raw}
    # Python code has the DataFrame itself
    named = {key: f"a {type(data).__name__}" for key, data in given.items() if not isinstance(data, str)}
    raw = {**raw, **named}
    parameters = read(TrainParameters, raw)
    parameters.require_data()
    tables = {key: session.table(data) for key, data in given.items() if data is not None and data != ""}
    return raw, parameters, tables


def _await_model(path: str) -> None:
    """Wait for the job that makes a model folder, if one is at it.

    Raises:
        ByzerError: the job failed.
    """
    from .cluster import jobs
    from .widgets.job_state import ENDED

    for job in jobs.listed():
        if job.folder.model.resolve() == Path(path).resolve() and job.state not in ENDED:
            print(f"Waiting for job {job.name}, which makes this model.")
            job.wait()
