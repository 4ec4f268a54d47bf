"""The gang of a job: a detached coordinator ``JOB`` that places, starts and watches workers ``W-RANK-JOB``.

The coordinator takes the job's lease, prepares the data, places the workers in one placement group and starts
them. When one dies it ends all and starts them again from the last checkpoint, a bounded number of times. Its
workers are not detached: they end with it. What it knows, it writes into the job folder; it exits with the job.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from byzerllm_adapters.errors import ByzerError

from . import recipe
from .job_folder import JobFolder, LeaseLost, Record
from .job_request import JobRequest, read_request
from .tensorboard_server import TensorBoardServer
from .worker import Worker, keep_log

NAMESPACE = "byzerllm"
MAX_RESTARTS = 3
PATIENCE_SECONDS = 10.0
"""After this long without resources the view says what is missing."""


def start_coordinator(root: str) -> Any:
    """Start the detached coordinator of the job in ``root``; return its actor handle."""
    import ray

    return (
        ray.remote(Coordinator)
        .options(
            name=JobFolder(root).name,
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=0,
            max_restarts=MAX_RESTARTS,
            max_concurrency=16,
        )
        .remote(root)
    )


class WorkerLost(Exception):
    """A worker process or its node died."""


class Coordinator:
    """Runs one job from its folder; see the module's description."""

    def __init__(self, root: str) -> None:
        self._folder = JobFolder(root)
        keep_log(self._folder.logs / "coordinator.log")
        self._stop, self._begun = threading.Event(), threading.Event()
        self._placed = threading.Event()
        self._workers: list[Any] = []
        self._board: TensorBoardServer | None = None
        self._preparing: Any | None = None
        self._attempt = 0
        threading.Thread(target=self._run, name="supervisor", daemon=True).start()

    def workers(self) -> list[Any]:
        """Wait until the gang is placed and return its actor handles, by rank."""
        self._placed.wait()
        return self._workers

    def begin(self) -> None:
        """Wait until this coordinator holds the lease, and the job's events say that it goes on."""
        self._begun.wait()

    def stop(self) -> None:
        """End the job after the current step, with a checkpoint."""
        self._stop.set()
        for worker in self._workers:
            worker.stop.remote()

    # -- the supervisor's thread ------------------------------------------------------------------------

    def _run(self) -> None:
        """Supervise to the end, record how it ended, and leave."""
        import ray

        try:
            self._conclude()
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
        except ByzerError as error:
            self._event("failed", error=error.render())
        except Exception as error:  # noqa: BLE001 - whatever it was, the cell has to say it
            traceback.print_exc()
            self._event("failed", error=[f"{type(error).__name__}: {error}"])

    def _supervise(self) -> Record:
        """Run attempts until one ends; return the final event."""
        request = read_request(self._folder)
        owner, self._attempt = self._take_lease()
        if self._attempt > 1:
            self._event("restarting", message="going on from the last checkpoint")
        self._begun.set()
        if request.driven and self._attempt > 1:
            raise ByzerError("the job's coordinator died, and Python code drives its workers", do="run that code again")
        if request.loop.report_to == "tensorboard":
            self._board = TensorBoardServer(self._folder.tensorboard)
            print(f"TensorBoard: {self._board.url}")
        self._preparing = self._begin_preparing()
        lost = 0
        while True:
            try:
                return self._one_attempt(request)
            except WorkerLost as loss:
                lost += 1
                if request.driven or lost > MAX_RESTARTS:
                    raise ByzerError(
                        f"{loss} ({lost} lost in this job)",
                        do=f'see "%byzerllm logs {self._folder.name}": out of memory is the usual reason',
                    ) from None
                self._attempt = self._folder.take_lease(owner, self._attempt)
                self._event("restarting", message=f"{loss}; going on from the last checkpoint")

    def _take_lease(self) -> tuple[str, int]:
        """Take the lease, also where Ray has restarted this coordinator; return who we are and the attempt.

        Raises:
            LeaseLost: before the restart somebody else had taken the job over, or it had ended.
        """
        import ray

        context, newest = ray.get_runtime_context(), self._folder.attempt()
        owner = f"coordinator {context.get_actor_id()}"
        if not context.was_current_actor_reconstructed or not newest:
            return owner, self._folder.take_lease(owner)
        if self._folder.owner(newest) != owner:
            raise LeaseLost(f"job {self._folder.name}: attempt {newest} took over")
        if self._folder.ending() is not None:
            raise LeaseLost(f"job {self._folder.name} had ended")
        return owner, self._folder.take_lease(owner, newest)

    def _begin_preparing(self) -> Any | None:
        """Tokenise in a Ray task, whose process gives the memory back; None when an earlier attempt has done it."""
        import ray

        if (self._folder.shards / "manifest.json").exists():
            return None
        self._event("preparing", message="tokenising")
        return ray.remote(num_cpus=0, max_retries=1)(prepare).remote(str(self._folder.root))

    def _finish_preparing(self) -> None:
        """Wait for the tokenised data.

        Raises:
            ByzerError: a row that does not fit, or nothing to learn from.
        """
        import ray

        if self._preparing is None:
            return
        try:
            counts = ray.get(self._preparing)
        except ray.exceptions.RayTaskError as error:
            print(error)  # its text is the traceback in the task
            raise told(error.cause, "tokenising", self._folder.name) from error
        self._event("prepared", **counts)
        self._preparing = None

    def _one_attempt(self, request: JobRequest) -> Record:
        """Place the gang, train, and return the final event. Workers load their libraries while data is tokenised."""
        import ray

        group = self._place(request)
        if group is None:
            return {"name": "stopped", "steps": 0}
        try:
            try:
                self._workers = list(self._create(request, group))
                self._rendezvous(request)
            except ray.exceptions.RayActorError:
                raise WorkerLost("a worker died before it could train") from None
            for worker in self._workers:
                worker.load.remote()
            self._finish_preparing()
            self._placed.set()
            if self._stop.is_set():
                self.stop()
            running = [w.outcome.remote() if request.driven else w.train.remote() for w in self._workers]
            outcome = self._watch(running)
            if request.driven:
                self._let_go()
            return {"name": outcome.pop("state"), **outcome}
        finally:
            for worker in self._workers:
                ray.kill(worker)
            ray.util.remove_placement_group(group)

    def _let_go(self) -> None:
        """Let workers end by themselves: who called their `train` is still to get what it returned."""
        for worker in self._workers:
            worker.__ray_terminate__.remote()
        with contextlib.suppress(ByzerError):  # then they are killed
            for rank in range(len(self._workers)):
                wait_until_free(f"W-{rank}-{self._folder.name}")

    def _place(self, request: JobRequest) -> Any | None:
        """Reserve a bundle a worker; say what is missing when that takes long. None: stopped meanwhile."""
        import ray

        bundle = {"CPU": request.cpus_per_worker, **request.resources} | ({"GPU": 1.0} if request.gpu else {})
        one_node = request.train.optimization.one_node
        group = ray.util.placement_group([bundle] * request.workers, "STRICT_PACK" if one_node else "PACK")
        where = {"tensorboard": self._board.url} if self._board else {}
        self._event("starting", message=f"placing {request.workers} worker{'s' * (request.workers > 1)}", **where)
        begun, told = time.monotonic(), False
        while not group.wait(1.0):
            if self._stop.is_set():
                ray.util.remove_placement_group(group)
                return None
            if not told and time.monotonic() - begun > PATIENCE_SECONDS:
                self._event("starting", message=_missing(bundle, request.workers))
                told = True
        return group

    def _create(self, request: JobRequest, group: Any) -> Iterator[Any]:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        for rank in range(request.workers):
            name = f"W-{rank}-{self._folder.name}"
            wait_until_free(name)
            yield (
                ray.remote(Worker)
                .options(
                    name=name,
                    namespace=NAMESPACE,
                    num_cpus=request.cpus_per_worker,
                    num_gpus=int(request.gpu),
                    resources=request.resources,
                    max_concurrency=8,
                    scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
                )
                .remote(str(self._folder.root), rank, self._attempt, request.threads_per_worker)
            )

    def _rendezvous(self, request: JobRequest) -> None:
        """Tell every rank to meet on rank 0's node, and its place on its own."""
        import ray

        nodes = ray.get([worker.node.remote() for worker in self._workers])
        address, port = nodes[0]
        seen: dict[str, int] = {}
        calls = []
        for worker, (ip, _) in zip(self._workers, nodes, strict=True):
            # Ray shows each GPU worker its own card only, as device 0; CPU ranks count on
            index = 0 if request.gpu else seen.get(ip, 0)
            seen[ip] = seen.get(ip, 0) + 1
            here = 1 if request.gpu else sum(ip == other for other, _ in nodes)
            calls.append(worker.meet.remote(address, port, index, here))
        ray.get(calls)

    def _watch(self, running: list[Any]) -> Record:
        """Wait for all ranks; return rank 0's outcome.

        Raises:
            WorkerLost: a process or node died.
            ByzerError: a rank raised; the most telling rank's error, with its rank.
        """
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        waiting = list(running)
        while waiting:
            done, waiting = ray.wait(waiting, timeout=5.0)
            for reference in done:
                try:
                    ray.get(reference)
                except RayActorError:
                    raise WorkerLost(f"worker {running.index(reference)} died") from None
                except RayTaskError as error:
                    raise self._telling(running, running.index(reference), error) from error
        outcome: Record = ray.get(running[0])
        return outcome

    def _telling(self, running: list[Any], rank: int, error: Any) -> Exception:
        """Choose what to tell when ``rank`` raised: its peers' deaths and real errors say more than lost links."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        ray.wait(running, num_returns=len(running), timeout=2.0)
        errors = {rank: error}
        for other, reference in enumerate(running):
            try:
                if other != rank:
                    ray.get(reference, timeout=0)
            except RayActorError:
                return WorkerLost(f"worker {other} died")
            except RayTaskError as theirs:
                errors[other] = theirs
            except ray.exceptions.GetTimeoutError:
                continue
        for number, each in sorted(errors.items(), key=lambda item: (_lost_link(item[1].cause), item[0])):
            print(each)  # its text is the traceback in the worker
            return told(each.cause, f"rank {number}", self._folder.name)
        raise AssertionError("errors holds at least this rank's")

    def _event(self, name: str, **details: Any) -> None:
        self._folder.check_lease(self._attempt)
        record = {"event": name, "time": time.time(), "attempt": self._attempt, **details}
        self._folder.append("events.jsonl", [record])
        print(f"{name}: {details}")


def prepare(root: str) -> Record:
    """Tokenise a job's data into its folder; return the recipe's counts."""
    folder = JobFolder(root)
    request = read_request(folder)
    return recipe.find(request.train.method).prepare(recipe.Job(folder, request))


def told(cause: BaseException, place: str, job: str) -> ByzerError:
    """Return what a task or worker raised as an error that names its place; a lost lease has none."""
    if isinstance(cause, LeaseLost):
        return cause
    if isinstance(cause, ByzerError):
        return ByzerError(cause.what, where=cause.where or place, do=cause.do)
    first = " ".join(str(cause).strip().splitlines()[:2])
    return ByzerError(f"{place}: {type(cause).__name__}: {first}", do=f'"%byzerllm logs {job}" shows its traceback')


def _lost_link(error: BaseException) -> bool:
    """Whether an error only says that a peer went away."""
    return any(word in str(error) for word in ("Connection closed", "Connection reset", "Broken pipe", "gloo"))


def wait_until_free(name: str) -> None:
    """Wait until Ray has forgotten a killed actor of this name."""
    import ray

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            ray.get_actor(name, NAMESPACE)
        except ValueError:
            return
        time.sleep(0.1)
    raise ByzerError(f"an actor {name!r} is still running", do="stop the job that it belongs to first")


def _missing(bundle: dict[str, float], workers: int) -> str:
    """Say what the gang waits for."""
    import ray

    free = ray.available_resources()
    parts = [
        f"{need * workers:g} {kind} ({free.get(kind, 0):g} free)"
        for kind, need in bundle.items()
        if free.get(kind, 0) < need * workers
    ]
    return f"waiting for {', '.join(parts) or 'room on one node'}: another job or deployment holds it"
