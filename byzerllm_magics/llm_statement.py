"""``run command as LLM`` for a session: deploy a model, start a training job, or act on models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.parameters import as_strings, read
from byzerllm_adapters.secret_values import known_here

from .parameters.notes import tell_notes

if TYPE_CHECKING:
    from byzerllm_trainers.train_parameters import TrainParameters

    from .cluster.deployments import Deployment
    from .cluster.jobs import Job
    from .evaluation import Evaluation
    from .model_actions import MadeModel
    from .session import Session


def deploy(session: Session, raw: Mapping[str, object]) -> Deployment:
    """Deploy a model and wait until it answers; with ``reconnect``, return the one that runs.

    Raises:
        ByzerError: bad input, no room, or a model that does not load; nothing is left of it then.
    """
    from byzerllm_adapters.infer_parameters import InferParameters
    from byzerllm_adapters.model_folder import check_model_folder
    from byzerllm_adapters.registry import check_name

    from .cluster import deployments
    from .tables.function_names import check_model_name

    parameters = read(InferParameters, raw)
    check_model_name(parameters.udf_name)
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
    keys = known_here(keys)  # the replica's environment is the cluster's, not the notebook's
    deployment = deployments.deploy(parameters, keys, sys_conf=session.settings.as_sys_conf(), owner=owner)
    session.chats.forget(name)  # what was said, was said to another model
    return deployment


def train(session: Session, raw: Mapping[str, object]) -> Job:
    """Start a training job; it goes on by itself.

    Raises:
        ByzerError: bad input, or no room for its workers; nothing was started then.
    """
    from byzerllm_trainers.submit import submit

    from .cluster import jobs

    raw, parameters, tables = read_training(session, raw)
    tell_notes(parameters)
    _await_model(parameters.local_model_dir)
    session.connect()
    settings = session.settings
    folder = submit(
        raw,
        owner=settings.owner,
        workers=max(1, settings.num_gpus),
        num_cpus=settings.num_cpus,
        resources=settings.resource.model_extra,
        **data_of(tables),
    )
    jobs.remember(folder)
    job = jobs.Job(folder, detached=parameters.detached)
    if parameters.output_table:
        session.tables[parameters.output_table] = job
    return job


HOMES = {"merge": "model_actions", "convert": "model_actions", "evaluate": "evaluation"}
"""The module of each action that a cell waits for; its function has the action's name."""


def act(
    session: Session, action: str, raw: Mapping[str, object], tell: Callable[[str], None]
) -> MadeModel | Evaluation:
    """Do an action of `HOMES` and return what it made; ``tell`` gets a line whenever something else is going on.

    Raises:
        ByzerError: bad input, or whatever keeps the action from succeeding.
    """
    work = getattr(import_module(f".{HOMES[action]}", __package__), action)
    made: MadeModel | Evaluation = work(session, raw, tell)
    return made


def read_training(
    session: Session, raw: Mapping[str, object]
) -> tuple[dict[str, object], TrainParameters, dict[str, Any]]:
    """Read the keys of a training statement; return them as a job keeps them, checked, and its tables by key.

    Raises:
        ByzerError: bad input.
    """
    from byzerllm_trainers.train_parameters import TrainParameters

    given = {key: raw[key] for key in ("inputTable", "evalTable") if raw.get(key) is not None}
    # Python code has the DataFrame itself
    named = {key: f"a {type(data).__name__}" for key, data in given.items() if not isinstance(data, str)}
    keys = {**raw, **named}
    parameters = read(TrainParameters, keys)
    parameters.require_data()
    tables = {key: session.rows(data) for key, data in given.items() if not isinstance(data, str) or data}
    return keys, parameters, tables


def data_of(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `byzerllm_trainers.submit` takes of a statement's tables: a Ray Dataset goes as it is."""
    from .tables.table import Table

    rows = tables.get("inputTable")
    arrow = {key: table.arrow() if isinstance(table, Table) else table for key, table in tables.items()}
    return {
        "table": arrow.get("inputTable"),
        "partitions": rows.partition_sizes if isinstance(rows, Table) else None,
        "eval_table": arrow.get("evalTable"),
    }


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
