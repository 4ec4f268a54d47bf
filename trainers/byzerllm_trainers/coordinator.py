"""The coordinator of a job: a detached actor ``JOB`` that runs it from its folder, whoever watches.

It takes the job's lease, prepares the data and runs a gang of workers; when one dies it ends all and starts them
again from the last checkpoint, a bounded number of times. What it knows, it writes into the job folder; it exits
with the job. Ray restarts it when it dies, and it goes on.
"""

from __future__ import annotations

import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from typing import Any

from byzerllm_adapters.errors import ByzerError

from . import afterwards, recipe
from .checkpoint import committed
from .copying import Copying
from .gang import NAMESPACE, EndedNow, Gang
from .job_folder import JobFolder, LeaseLost, Record
from .job_request import JobRequest, read_request
from .object_store import is_remote, store_settings
from .on_finish import announce
from .placement import on_node
from .tensorboard_server import TensorBoardServer
from .versions import installed_versions
from .worker import keep_log
from .worker_errors import WorkerLost, told

MAX_LOSSES = 3
"""So many losses in a row are survived without a new checkpoint between them: more repeat themselves."""


def start_coordinator(root: str) -> Any:
    """Start the detached coordinator of the job in ``root``; return its actor handle."""
    import ray

    prefix = str(JobFolder(root).request()["parameters"].get("localPathPrefix", ""))
    return (
        ray.remote(Coordinator)
        .options(
            name=JobFolder(root).name,
            namespace=NAMESPACE,
            lifetime="detached",
            scheduling_strategy=on_node(),
            num_cpus=0,
            memory=1,  # an actor that takes nothing is placed anywhere, whatever its strategy says
            max_restarts=-1,  # `_go_on` bounds them
            max_concurrency=16,
        )
        .remote(root, installed_versions(), store_settings() if is_remote(prefix) else {})
    )


BEGIN_SECONDS = 60.0
"""So long a stop waits until the job has begun: taking the lease takes a moment."""

LOSS = "loss"
"""The event that says that a worker was lost, at once; ``restarting`` follows when the others are gone."""

STOPPING = "stopping"
"""The event that says that the user has asked for the job's end."""


class AlreadyEnded(Exception):
    """The coordinator died after its job had ended, perhaps before all that follows was done."""


class Coordinator:
    """Runs one job from its folder; see the module's description.

    Args:
        root: The job's folder.
        versions: Of Python and the key libraries where the job was asked for.
        store: Keys and server of the object store, where the job has a copy there.
    """

    def __init__(self, root: str, versions: Mapping[str, str], store: Mapping[str, str]) -> None:
        self._folder, self._versions = JobFolder(root), versions
        keep_log(self._folder.logs / "coordinator.log")
        self._stop, self._end_now = threading.Event(), threading.Event()
        self._begun, self._placed = threading.Event(), threading.Event()
        self._gang: Gang | None = None
        self._board: TensorBoardServer | None = None
        self._preparing: Any | None = None
        self._owner, self._attempt = "", 0
        self._telling = threading.RLock()
        self._copying = Copying(self._folder, store, tell=self._note, superseded=self._superseded)
        threading.Thread(target=self._run, name="supervisor", daemon=True).start()

    def workers(self) -> list[Any]:
        """Wait until the gang is placed and return its actor handles, by rank."""
        self._placed.wait()
        return self._gang.workers if self._gang else []

    def begin(self) -> None:
        """Wait until this coordinator holds the lease, and the job's events say that it goes on."""
        self._begun.wait()

    def _superseded(self) -> None:
        """End at once: the job goes on elsewhere."""
        self._stop.set()
        self._end_now.set()

    def stop(self, now: bool = False) -> None:
        """End the job after the current step, with a checkpoint; or ``now``, with what the last one holds.

        The events say so before this returns: it holds although this process may die, and be restarted, before it acts.
        """
        self._begun.wait(BEGIN_SECONDS)  # before, there is no attempt to say it of
        with self._telling:
            if self._folder.ending() is not None:  # nothing may follow a job's end
                return
            how = "with its last checkpoint" if now else "after a step and its checkpoint"
            self._event(STOPPING, message=f"ends {how}", now=now)
        self._stop.set()
        if now:
            self._end_now.set()
        elif self._gang:
            self._gang.stop()

    # -- the supervisor's thread ------------------------------------------------------------------------

    def _run(self) -> None:
        """Supervise to the end, record how it ended, and leave."""
        import ray

        try:
            self._conclude()
            self._begun.set()  # also where it could not begin
            try:
                self._announce()
                for wrong in afterwards.call_all(self._folder):
                    self._note(wrong)
            finally:
                self._copying.finish()
        except LeaseLost as lost:  # the job goes on elsewhere, and its folder is no longer ours
            print(f"ends: {lost}")
        finally:
            self._placed.set()
            self._begun.set()
            ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

    def _conclude(self) -> None:
        """Supervise, and record how the job ended.

        Raises:
            LeaseLost: another coordinator has taken the job over.
        """
        try:
            self._event(**self._supervise())
        except LeaseLost:
            raise
        except AlreadyEnded as ended:
            print(ended)
        except ByzerError as error:
            self._event("failed", error=error.render())
        except Exception as error:  # noqa: BLE001 - whatever it was, the cell has to say it
            traceback.print_exc()
            self._event("failed", error=[f"{type(error).__name__}: {error}"])

    def _announce(self) -> None:
        """Tell whom the user wants to be told that the job has ended.

        Raises:
            LeaseLost: another coordinator has taken the job over.
        """
        how = read_request(self._folder).train.on_finish
        if how is None:
            return
        try:
            announce(how, self._folder)
        except Exception as error:  # noqa: BLE001 - a bad address, a server's nonsense: the job has ended all the same
            self._note(f"on_finish failed: {error}")

    def _supervise(self) -> Record:
        """Run attempts until one ends; return the final event."""
        request = read_request(self._folder)
        self._begin(request)
        self._begun.set()
        if request.loop.report_to == "tensorboard":
            self._board = TensorBoardServer(self._folder.tensorboard)
            print(f"TensorBoard: {self._board.url}")
        self._preparing = self._begin_preparing()
        while True:
            try:
                return self._one_attempt(request)
            except WorkerLost as loss:
                self._take_lease(self._attempt)
                self._go_on(request, str(loss))

    def _begin(self, request: JobRequest) -> None:
        """Take the lease, also where Ray has restarted this coordinator, and say that a job goes on that had begun.

        Raises:
            LeaseLost: before the restart somebody else had taken the job over.
            AlreadyEnded: it had ended.
            ByzerError: it was restarted too often.
        """
        import ray

        context, newest = ray.get_runtime_context(), self._folder.attempt()
        self._owner = f"coordinator {context.get_actor_id()}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Ray's, of what this property itself calls
            restarted = bool(context.was_current_actor_reconstructed)
        if not restarted or not newest:
            self._take_lease()
            if self._attempt > 1:
                self._event("restarting", message=self._from_where())
            return
        if self._folder.owner(newest) != self._owner:
            raise LeaseLost(f"job {self._folder.name}: attempt {newest} took over")
        if self._folder.ending() is not None:
            self._attempt = newest
            self._copying.claim(newest, self._owner, wait=False)
            raise AlreadyEnded(f"job {self._folder.name} had ended: what follows its end is done again")
        self._take_lease(newest)
        self._go_on(request, "its coordinator died")
        self._heed_earlier_stop()

    def _take_lease(self, held: int | None = None) -> None:
        import ray

        cluster = ray.get_runtime_context().gcs_address
        with self._telling:
            self._attempt = self._folder.take_lease(self._owner, held, cluster=cluster)
        self._copying.claim(self._attempt, self._owner, wait=held is None)

    def _go_on(self, request: JobRequest, loss: str) -> None:
        """Say that the job goes on after a loss.

        Raises:
            ByzerError: it does not: losses repeat themselves, or Python code drives its workers.
        """
        if request.driven:
            raise ByzerError(f"{loss}, and Python code drives the workers", do="run that code again")
        losses = 1
        for event in reversed(self._folder.events()):
            if event["event"] == "checkpoint" or _is_resumed(event):
                break
            losses += "lost" in event
        if losses > MAX_LOSSES:
            raise ByzerError(
                f"{loss} ({losses} losses without a new checkpoint)",
                do=f'see "%byzerllm logs {self._folder.name}": out of memory is the usual reason',
            )
        self._event("restarting", message=f"{loss}; {self._from_where()}", lost=loss)

    def _from_where(self) -> str:
        saved = committed(self._folder)
        return "going on from the last checkpoint" if saved else "beginning again: there is no checkpoint yet"

    def _heed_earlier_stop(self) -> None:
        """End soon if the user had asked for it before this coordinator died, and has not resumed the job since."""
        for event in reversed(self._folder.events()):
            if _is_resumed(event):
                return
            if event["event"] == STOPPING:
                self._stop.set()
                if event["now"]:
                    self._end_now.set()
                return

    def _begin_preparing(self) -> Any | None:
        """Tokenise in a Ray task, whose process gives the memory back; None when an earlier attempt has done it."""
        import ray

        told = any(event["event"] == "prepared" for event in self._folder.events())
        if told and (self._folder.shards / "manifest.json").exists():
            return None  # else an earlier attempt was refused, or died before it could say what it found
        self._event("preparing", message="tokenising")
        task = ray.remote(num_cpus=0, max_retries=1, scheduling_strategy=on_node())(prepare)
        return task.remote(str(self._folder.root), self._attempt)

    def _finish_preparing(self) -> None:
        """Wait for the tokenised data.

        Raises:
            EndedNow: the user does not want it any more.
            ByzerError: a row that does not fit, nothing to learn from, or the process died again and again.
        """
        import ray

        if self._preparing is None:
            return
        while not ray.wait([self._preparing], timeout=1.0)[0]:
            if self._end_now.is_set():
                ray.cancel(self._preparing, force=True)
                raise EndedNow
        try:
            counts = ray.get(self._preparing)
        except ray.exceptions.RayTaskError as error:
            print(error)  # its text is the traceback in the task
            raise told(error.cause, "tokenising", self._folder.name) from error
        except ray.exceptions.RayError as error:  # Ray has tried again, and says why in many lines
            print(error)
            do = f'out of memory is the usual reason: "%byzerllm logs {self._folder.name}" shows what Ray knows'
            raise ByzerError("tokenising: its process died twice", do=do) from error
        self._event("prepared", **counts)
        for note in notes_of(counts):
            self._note(note)
        self._preparing = None

    def _one_attempt(self, request: JobRequest) -> Record:
        """Place a gang, train, and return the final event. Workers load their libraries while data is tokenised.

        Raises:
            WorkerLost: the gang is to start again.
            ByzerError: why the job cannot go on.
        """
        gang = Gang(self._folder, request, self._attempt)
        where = {"tensorboard": self._board.url} if self._board else {}
        self._event("starting", message=f"placing {request.workers} worker{'s' * (request.workers > 1)}", **where)
        try:
            if not gang.place(self._say_what_is_missing, self._stop.is_set):
                return self._stopped()
            gang.start(self._versions, self._stop.is_set)
            gang.load()
            self._gang = gang
            self._finish_preparing()
            self._placed.set()
            if self._stop.is_set():
                gang.stop()
            outcome = gang.train(self._end_now.is_set)
            return {"name": outcome.pop("state"), **outcome}
        except EndedNow:
            return self._stopped()
        except WorkerLost as loss:
            self._event(LOSS, message=f"{loss}; ending what is left of the gang")
            raise
        finally:
            gang.end()

    def _stopped(self) -> Record:
        """Return the event of a job that ends without another step: it goes on from its last checkpoint."""
        saved = [event["step"] for event in self._folder.events() if event["event"] == "checkpoint"]
        return {"name": "stopped", "steps": saved[-1] if saved else 0}

    def _say_what_is_missing(self, message: str) -> None:
        self._event("starting", message=message, waiting=True)

    def _note(self, message: str) -> None:
        self._event("note", message=message)

    def _event(self, name: str, **details: Any) -> None:
        with self._telling:
            self._folder.check_lease(self._attempt)
            record = {"event": name, "time": time.time(), "attempt": self._attempt, **details}
            self._folder.append("events.jsonl", [record], last_words=True)
        print(f"{name}: {details}")


def _is_resumed(event: Record) -> bool:
    """Whether an event says that the user has the job go on, not that it does so by itself after a loss."""
    return event["event"] == "restarting" and "lost" not in event


def notes_of(counts: Record) -> list[str]:
    """Return what the user should know of the prepared data: what of it is not learned."""
    notes = []
    if dropped := counts.get("rows_dropped"):
        notes.append(f"{dropped:,} row{'s' * (dropped > 1)} dropped; the first: {counts['first_dropped']}")
    if cut := counts.get("examples_cut_off"):
        notes.append(
            f"{cut:,} example{'s' * (cut > 1)} cut at max_seq_length: what was cut off, end included, is not learned"
        )
    if "context" in counts:
        longest, context = counts["longest"], counts["context"]
        notes.append(f"rows have up to {longest:,} tokens, and the model's context only {context:,}")
    return notes


def prepare(root: str, attempt: int) -> Record:
    """Tokenise a job's data into its folder, for this attempt; return the recipe's counts.

    Raises:
        LeaseLost: another attempt has begun meanwhile, and does it again.
    """
    folder = JobFolder(root, preparing=attempt)
    request = read_request(folder)
    counts = recipe.find(request.train.method).prepare(recipe.Job(folder, request))
    folder.publish()
    return counts
