"""What a name of a model stands for: a folder, a job's result, a deployed model."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.job_folder import JobFolder

if TYPE_CHECKING:
    from .cluster.deployments import Deployment
    from .cluster.jobs import Job


@dataclass(frozen=True)
class ModelPlace:
    """Where a model is.

    Attributes:
        name: As the user wrote it.
        folder: What ``localModelDir`` takes; None: it is asked where it is deployed.
        deployment: The deployed model.
    """

    name: str
    folder: Path | None
    deployment: Deployment | None = None

    @property
    def job(self) -> JobFolder | None:
        """The job in whose folder the model is."""
        folder = self.folder
        if self.deployment is not None:
            folder = Path(self.deployment.describe()["localModelDir"])
        assert folder is not None, "a model is somewhere"
        return job_around(folder)


def job_around(folder: Path) -> JobFolder | None:
    """Return the job whose folder holds a model's folder; None: there is none."""
    job = JobFolder(folder.parent)
    return job if job.exists() else None


def find_job(name: str) -> Job | None:
    """Return the job that a name or a folder means; None: there is none."""
    from .cluster import jobs

    try:
        return jobs.find(name)
    except ByzerError:
        return None


def model_folder(name: str, key: str = "localModelDir") -> Path:
    """Return the folder of a model: of a job (by name or folder) its result, else the folder itself.

    A job that is still running is waited for.

    Raises:
        ByzerError: there is neither, or the job failed or has no result.
    """
    from byzerllm_adapters.model_folder import check_model_folder

    from .cluster import jobs
    from .widgets.job_state import ENDED

    path = Path(name).expanduser()
    job = jobs.Job(JobFolder(path)) if JobFolder(path).exists() else None if path.is_dir() else find_job(name)
    if job is None:
        if not path.is_dir():
            known = [each.name for each in jobs.listed()]
            near = difflib.get_close_matches(name, known, n=1)
            do = f'did you mean "{near[0]}"?' if near else '"%byzerllm jobs" lists the jobs'
            raise ByzerError(f'no folder and no job "{name}"', where=f"in {key}", do=do)
        return check_model_folder(name)
    if job.state not in ENDED:
        print(f"Waiting for job {job.name}, which makes this model.")
        job.wait()
    if not job.folder.model.is_dir():
        raise ByzerError(
            f"job {job.name} {job.state} without a result",
            where=f"in {key}",
            do=f'action="convert" and checkpointDir="{name}" makes a model folder of its newest checkpoint',
        )
    return job.folder.model


def model_place(name: str, deployed: dict[str, Deployment]) -> ModelPlace:
    """Return what a name stands for: a folder first, then a job, then a deployed model.

    Args:
        name: As the user wrote it.
        deployed: The user's own deployed models by name.

    Raises:
        ByzerError: there is nothing of that name (with the nearest one), or it has no result.
    """
    from .cluster import jobs

    if Path(name).expanduser().is_dir() or find_job(name) is not None:
        return ModelPlace(name, model_folder(name))
    if name in deployed:
        return ModelPlace(name, None, deployed[name])
    known = [*(job.name for job in jobs.listed()), *deployed]
    near = difflib.get_close_matches(name, known, n=1)
    raise ByzerError(
        f'no folder, no job and no deployed model "{name}"',
        where="in localModelDir",
        do=f'did you mean "{near[0]}"?' if near else '"%byzerllm jobs" and "%byzerllm models" list what there is',
    )
