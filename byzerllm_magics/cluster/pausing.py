"""A deployed model lends what it holds to a job that waits for it, and comes back when the job has ended."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import afterwards, follow

from . import deployments

if TYPE_CHECKING:
    from .deployments import Deployment
    from .jobs import Job


PURPOSE = "bringing back model "


def paused(jobs: Iterable[Job]) -> list[tuple[str, str]]:
    """Return the models that are paused, each with the job that brings it back."""
    return [
        (path.name.removeprefix(PURPOSE), job.name)
        for job in jobs
        for path in sorted(job.folder.afterwards.glob(f"{PURPOSE}*"))
    ]


def pause(deployment: Deployment, job: Job) -> None:
    """Delete a deployed model until a job has ended; its coordinator brings the model back, whoever watches.

    Args:
        deployment: The model.
        job: Has to be running, or waiting for room.

    Raises:
        ByzerError: the job has ended, or its cluster is gone; the model stays then.
    """
    purpose = f"{PURPOSE}{deployment.name}"
    afterwards.add(job.folder, purpose, partial(deployments.bring_back, *deployment.asked(), deployment.application))
    if job.folder.ending() is not None or not follow.is_alive(job.folder):
        afterwards.remove(job.folder, purpose)  # nobody would call it
        raise ByzerError(
            f"job {job.name} is {job.state}: model {deployment.name!r} stays",
            do=f'"%byzerllm undeploy {deployment.name}" frees what the model holds',
        )
    deployments.undeploy(deployment.name, deployment.owner)
