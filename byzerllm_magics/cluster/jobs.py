"""Training jobs as a kernel sees them: handles by name, and the list of known jobs."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import follow
from byzerllm_trainers.job_folder import (
    FINAL_STATES,
    JobFolder,
    Record,
    read_json,
    write_json,
)
from byzerllm_trainers.mirror import fetch
from byzerllm_trainers.object_store import is_remote

from ..paths import shown
from ..state_folder import state_folder
from . import connection, embedded
from .connection import connect, is_connected
from .job_watch import JobWatch

if TYPE_CHECKING:
    import pandas as pd


class Job:
    """A training job: a name for its folder. Cheap to make, true in any kernel.

    Args:
        folder: The job's folder.
        detached: False when its statement said that it is to be waited for.
    """

    def __init__(self, folder: JobFolder, *, detached: bool = True) -> None:
        self.folder, self.detached = folder, detached

    @property
    def name(self) -> str:
        """The job's name."""
        return self.folder.name

    @property
    def model(self) -> str:
        """The result's folder: what ``localModelDir`` takes, once the job has finished."""
        return str(self.folder.model)

    @property
    def state(self) -> str:
        """``preparing``, ``starting``, ``running``, ``restarting``, ``stopping``, or how it ended.

        That is ``finished``, ``failed``, ``stopped``, or ``lost``: its cluster is gone, and it can be resumed.
        """
        state = JobWatch(self.folder).hear()
        return "lost" if state.active and not follow.is_alive(self.folder) else state.state

    def wait(self, on_look: Callable[[], None] = lambda: None, tell: Callable[[str], None] = print) -> Record:
        """Wait for the end and return the result row.

        Args:
            on_look: Called at every look, a few times a second.
            tell: Called with what the job waits for, if there is no room for it.

        Raises:
            ByzerError: the job failed.
        """
        follow.wait(self.folder, on_look, tell)
        return follow.result_row(self.folder)

    def stop(self, *, now: bool = False) -> None:
        """Ask the job to save a checkpoint and end after the current step; or ``now``, with what was saved before.

        Raises:
            ByzerError: it is not running, or there is no cluster.
        """
        import ray

        from byzerllm_trainers.gang import NAMESPACE

        if not is_connected():  # asking Ray would start another cluster
            connect(start=False)
        try:
            coordinator = ray.get_actor(self.name, NAMESPACE)
        except ValueError:
            raise ByzerError(f"job {self.name!r} is not running: it is {self.state}") from None
        ray.get(coordinator.stop.remote(now))

    def resume(self, *, epochs: float | None = None, max_steps: int | None = None, workers: int | None = None) -> None:
        """Go on from the last checkpoint: after a stop, a failure, or with the cluster gone, on another one.

        Args:
            epochs: Train to so many epochs in all, also a job that has finished; None: as many as it was given.
            max_steps: The same in steps; give one of the two.
            workers: Go on with so many; each step keeps its rows. None: as many as before.

        Raises:
            ByzerError: the job runs, or it has nothing left to do.
        """
        from byzerllm_trainers.resume import Changes, resume

        if epochs is not None and max_steps is not None:
            raise ByzerError("epochs and max_steps are both given", do="give one of them")
        if not is_connected():
            connect()
        resume(self.folder, Changes(epochs, max_steps, workers))

    def metrics(self) -> pd.DataFrame:
        """Return all steps: step, loss, learning_rate, grad_norm, tokens, tokens_per_second, seconds."""
        import pandas as pd

        return pd.DataFrame(self.folder.metrics())

    def samples(self) -> pd.DataFrame:
        """Return what the model answered the ``sample_prompts``: attempt, step, prompt, answer."""
        import pandas as pd

        return pd.DataFrame(self.folder.samples(), columns=["attempt", "step", "prompt", "answer"])

    def result(self) -> Record:
        """Return the result row as far as the job is."""
        return follow.result_row(self.folder)

    def df(self) -> pd.DataFrame:
        """Wait for the end and return the result row as a DataFrame: what ``outputTable`` holds.

        Raises:
            ByzerError: the job failed.
        """
        import pandas as pd

        return pd.DataFrame([self.wait()])

    def logs(self, rank: int | None = None, lines: int = 50) -> str:
        """Return the last lines of a rank's log, or of the coordinator's and every rank's.

        Raises:
            ByzerError: there is no such log.
        """
        pattern = "*.log" if rank is None else f"rank-{rank}.log"
        files = sorted(self.folder.logs.glob(pattern))
        if not files:
            raise ByzerError(f"job {self.name!r} has no log{'' if rank is None else f' of rank {rank}'} yet")
        tails = [
            (path.name, path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) for path in files
        ]
        return "\n".join(line for name, tail in tails for line in (f"── {name}", *tail))

    def __repr__(self) -> str:
        return f"Job({self.name!r}, {self.state}, {shown(self.folder.root)})"


def remember(folder: JobFolder) -> None:
    """Keep a job's place, so that any later kernel finds it by name."""
    known = state_folder() / "jobs"
    known.mkdir(exist_ok=True)
    place = hashlib.sha256(str(folder.root).encode()).hexdigest()[:12]  # jobs in two folders may have one name
    write_json(known / f"{folder.name}-{place}.json", {"folder": str(folder.root)})


def find(name: str) -> Job:
    """Return a job by name, the newest of that name, by its folder's path, or fetched from its ``s3://`` address.

    Raises:
        ByzerError: none is known; the nearest name.
    """
    if is_remote(name):
        folder = fetch(name)
        if folder.is_fetched:
            print(f"Fetched {name}: the job as its copy has it now.")
        remember(folder)
        return Job(folder)
    jobs = listed()
    if named := [job for job in jobs if job.name == name]:
        return named[0]
    for folder in (JobFolder(Path(name)), JobFolder(Path("jobs") / name)):
        if folder.exists():
            return Job(folder)
    known = list(dict.fromkeys(job.name for job in jobs))
    near = difflib.get_close_matches(name, known, n=1)
    do = f'did you mean "{near[0]}"?' if near else '"%byzerllm jobs" lists them; a folder\'s path works too'
    raise ByzerError(f"no job {name!r}", where=f"known: {', '.join(known[:8]) or 'none'}", do=do)


def listed() -> list[Job]:
    """All jobs that this user started and whose folders still exist, the newest first."""
    records = (state_folder() / "jobs").glob("*.json")
    folders = [JobFolder(read_json(path)["folder"]) for path in records]
    there = [folder for folder in folders if folder.exists()]
    return [Job(f) for f in sorted(there, key=lambda f: -(f.root / "job.json").stat().st_mtime)]


def running() -> list[str]:
    """Names of those that go on, or still send their copy."""
    here = [job for job in listed() if not job.folder.is_fetched]
    return [job.name for job in here if job.state not in (*FINAL_STATES, "lost") or _sends_its_copy(job)]


def _sends_its_copy(job: Job) -> bool:
    """Whether a job's coordinator on the connected cluster is still there to send the end of it elsewhere."""
    import ray

    from byzerllm_trainers.gang import NAMESPACE

    if not is_remote(str(job.folder.request()["parameters"].get("localPathPrefix", ""))) or not ray.is_initialized():
        return False
    try:
        ray.get_actor(job.name, NAMESPACE)
    except ValueError:
        return False
    return True


def refuse_while_running() -> None:
    """Refuse to end the cluster under a job that goes on.

    Raises:
        ByzerError: one does; how to end it.
    """
    if not connection.is_connected() and (found := embedded.find()):
        connection.connect(found.address)  # a kernel that has just started; jobs of another may run there
    if connection.is_connected() and (names := running()):
        raise ByzerError(
            f"still running: {', '.join(names)}",
            do='"%byzerllm stop NAME" saves a checkpoint and ends a job; "%byzerllm shutdown --force" does not',
        )
