"""Training as a user starts it: a session, its embedded cluster, a job, and what the job's folder says."""

from __future__ import annotations

from pathlib import Path

from byzerllm_magics import Session
from byzerllm_magics.cluster.connection import connect
from byzerllm_magics.cluster.jobs import Job

CORES = 2
"""What the cluster counts on any machine: a job of one worker computes with 2 threads, of two with 1 each."""

WARM_UP_STEPS = 5
"""Steps whose allocations and first touches are nobody's speed."""


def session(workers: int) -> Session:
    """Return a session on the embedded cluster whose jobs have ``workers`` ranks; ``run.py`` ends the cluster."""
    connect(num_cpus=CORES)
    ours = Session()
    ours.setup(num_gpus=workers)
    return ours


def tokens_per_second(ours: Session, work: Path, parameters: dict[str, object]) -> float:
    """Train, and return the real (unpadded) tokens per second of wall time over all ranks.

    Taken from ``metrics.jsonl`` between the moments at which the last step of the warm-up and the very last step
    were recorded: data, metrics and everything else between steps counts.
    """
    job = ours.run({"localPathPrefix": str(work / "jobs"), **parameters})
    assert isinstance(job, Job)
    job.wait()
    warm, *rest = job.folder.metrics()[WARM_UP_STEPS - 1 :]
    tokens: int = sum(record["tokens"] for record in rest)
    seconds: float = rest[-1]["time"] - warm["time"]
    return tokens / seconds
