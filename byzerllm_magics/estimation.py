"""What training would take, for a session: a cell's statement, or a job that there is. Nothing is started."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .llm_statement import data_of, read_training

if TYPE_CHECKING:
    import pyarrow as pa

    from .cluster.jobs import Job
    from .estimate_card import EstimateCard
    from .session import Session


def estimate(session: Session, raw: Mapping[str, object]) -> EstimateCard:
    """Estimate what a training statement would take; no cluster is started either.

    Raises:
        ByzerError: bad input, as `llm_statement.train` says it; a statement that does not train.
    """
    from .parameters import route

    action = route(raw)
    if action != "finetune":
        raise ByzerError(
            f'only training is estimated, and action="{action}" trains nothing',
            do=f'run it with %%byzerllm run, or leave action="{action}" out and write pretrainedModelType="sft/NAME"',
        )
    keys, _, tables = read_training(session, raw)
    return _estimated(session, keys, workers=max(1, session.settings.num_gpus), **data_of(tables))


def estimate_job(session: Session, job: Job) -> EstimateCard:
    """Estimate a job that there is, from its request and the rows in its folder.

    Raises:
        ByzerError: its model or its data is not there any more.
    """
    import pyarrow.parquet as pq

    from byzerllm_trainers.corpus import EVAL_ROWS_FILE, ROWS_FILE, partitions
    from byzerllm_trainers.job_request import read_request

    request = read_request(job.folder)

    def kept(file: str) -> pa.Table | None:
        path = job.folder.data / file
        return pq.read_table(path) if path.exists() else None

    bounds = partitions(job.folder)
    return _estimated(
        session,
        request.parameters,
        workers=request.workers,
        table=kept(ROWS_FILE),
        partitions=bounds and [end - begin for begin, end in pairwise(bounds)],
        eval_table=kept(EVAL_ROWS_FILE),
    )


def _estimated(session: Session, raw: Mapping[str, object], **details: Any) -> EstimateCard:
    from byzerllm_trainers.estimate import estimate

    from .cluster import jobs
    from .cluster.machines import machines
    from .estimate_card import EstimateCard

    found, where = machines(session.settings.ray_address)
    known = [job.folder for job in jobs.listed()]
    return EstimateCard(estimate(raw, found, earlier=known, **details), where)
