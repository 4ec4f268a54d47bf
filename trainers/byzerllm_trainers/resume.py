"""Going on with a job from its folder, on whatever cluster there is now."""

from __future__ import annotations

from byzerllm_adapters.errors import ByzerError

from .gang import start_coordinator, wait_until_free
from .job_folder import JobFolder
from .job_request import read_request


def resume(folder: JobFolder) -> None:
    """Start the coordinator of a job that was stopped, failed, or whose coordinator is gone.

    It takes a new lease: if the old coordinator comes back after all, that one ends. When this returns, the job's
    events say that it goes on; it does from its last whole checkpoint, with as many workers as before.

    Args:
        folder: The job's.

    Raises:
        ByzerError: it runs, it has finished, or Python code drives its workers.
    """
    import ray
    from ray.exceptions import RayActorError

    request = read_request(folder)
    if request.driven:
        raise ByzerError(f"job {folder.name} is driven by Python code", do="run that code again")
    ending = folder.ending()
    if ending and ending["event"] == "finished":
        method = request.train.method
        raise ByzerError(
            f"job {folder.name} has finished: {ending['steps']} steps",
            where=f"folder {folder.root}",
            do=f'train on in a new job: {method}.resume_from_checkpoint="{folder.root}" and more epochs',
        )
    before = folder.attempt()
    if ending:
        wait_until_free(folder.name)  # its coordinator may still be leaving
    try:
        coordinator = start_coordinator(str(folder.root))
    except ValueError:  # Ray: an actor of this name is there
        raise ByzerError(
            f"job {folder.name} is running on this cluster", do=f'see it with "%byzerllm attach {folder.name}"'
        ) from None
    try:
        ray.get(coordinator.begin.remote())
    except RayActorError as error:  # it may have ended since, and the job's events say how
        print(error)
    if folder.attempt() == before:
        raise ByzerError(
            f"job {folder.name} did not go on: its new coordinator failed",
            where=f"folder {folder.root}",
            do=f'"%byzerllm logs {folder.name}" shows why; every node has to see the folder',
        )
