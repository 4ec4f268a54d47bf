"""A gang: the workers ``W-RANK-JOB`` of one attempt of a job, from their placement to their end.

They hold one placement group, meet on rank 0's node, and are watched: a process or node that dies, a rank that
raises, and one that stands still end the attempt. They are not detached: they end with the job's coordinator.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .job_folder import JobFolder, Record
from .job_request import JobRequest
from .processes import Place, dump_stacks, end_processes
from .versions import check_versions
from .watchdog import Watchdog
from .worker import Worker
from .worker_errors import WorkerLost, telling_error

NAMESPACE = "byzerllm"
PATIENCE_SECONDS = 10.0
"""After this long without resources the view says what is missing."""

LOOK_SECONDS = 0.5
"""Between looks at whether the job is to end now, or a worker stands still; a death wakes the coordinator at once."""


LEAVE_SECONDS = 2.0
"""So long a worker whose training has ended has to answer who called for it."""

WORKER = re.compile(r"W-\d+-(?P<job>.+)")
"""A worker's name: who only waits for room has none."""

REPLICA = "SERVE_REPLICA::"
"""How the names of Ray Serve's replicas begin: its application's and deployment's names follow."""


class EndedNow(Exception):
    """The user wants the job to end, and there is nothing to save, or nothing is to be."""


class Gang:
    """The workers of one attempt.

    Args:
        folder: The job's.
        request: What the job is asked to do.
        attempt: The attempt whose lease the workers write under.

    Attributes:
        workers: Ray actor handles, by rank; empty before `start`.
    """

    def __init__(self, folder: JobFolder, request: JobRequest, attempt: int) -> None:
        self._folder, self._request, self._attempt = folder, request, attempt
        self._group: Any | None = None
        self._places: list[Place] = []
        self.workers: list[Any] = []

    def place(self, on_waiting: Callable[[str], None], is_stopped: Callable[[], bool]) -> bool:
        """Reserve a bundle a worker; return whether there is room: it waits for it unless stopped meanwhile.

        Args:
            on_waiting: Told once what is missing, when that takes long.
            is_stopped: Asked once a second.
        """
        import ray

        request = self._request
        bundle = {"CPU": request.cpus_per_worker, **request.resources} | ({"GPU": 1.0} if request.gpu else {})
        one_node = request.train.optimization.one_node
        self._group = ray.util.placement_group([bundle] * request.workers, "STRICT_PACK" if one_node else "PACK")
        begun, told = time.monotonic(), False
        while not self._group.wait(1.0):
            if is_stopped():
                return False
            if not told and time.monotonic() - begun > PATIENCE_SECONDS:
                on_waiting(_missing(bundle, request.workers, self._folder.name))
                told = True
        return True

    def start(self, versions: Mapping[str, str], is_stopped: Callable[[], bool]) -> list[Place]:
        """Start the workers, and tell them where to meet; return where they are, by rank.

        Args:
            versions: Of Python and the key libraries where the job was asked for; the workers' have to be the same.
            is_stopped: Asked while they are waited for: a node that has just died may keep one from its place.

        Raises:
            EndedNow: ``is_stopped`` said so.
            WorkerLost: one died before it could train.
            ByzerError: a node does not see the job's folder, or has other versions.
        """
        import ray

        try:
            self.workers = [self._create(rank) for rank in range(self._request.workers)]
            self._places = _answers([worker.place.remote() for worker in self.workers], is_stopped)
            check_versions(versions, {place.node: place.versions for place in self._places})
            _answers([worker.meet.remote(self._places) for worker in self.workers], is_stopped)
        except ray.exceptions.RayActorError:
            raise WorkerLost("a worker died before it could train") from None
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        return self._places

    def load(self) -> None:
        """Have the workers import what they need, and do not wait for it."""
        for worker in self.workers:
            worker.load.remote()

    def train(self, is_ended: Callable[[], bool]) -> Record:
        """Train and return rank 0's outcome. If Python code drives the workers, wait until it has.

        Args:
            is_ended: Whether the job is to end now, without a checkpoint.

        Raises:
            WorkerLost: a process or node died, or a worker stood still.
            EndedNow: ``is_ended`` said so.
            ByzerError: a rank raised; the most telling rank's error, with its rank.
        """
        driven = self._request.driven
        running = [w.outcome.remote() if driven else w.train.remote() for w in self.workers]
        outcome = self._watch(running, is_ended)
        if driven:
            self._let_go()
        return outcome

    def stop(self) -> None:
        """Ask the workers to end after their current step, with a checkpoint."""
        for worker in self.workers:
            worker.stop.remote()

    def end(self) -> None:
        """End what is left of the gang, and return when its processes are gone from every node that can be reached."""
        import ray

        for worker in self.workers:
            ray.kill(worker)
        if self._group is not None:
            ray.util.remove_placement_group(self._group)
        end_processes(self._places)

    def _create(self, rank: int) -> Any:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        request = self._request
        name = f"W-{rank}-{self._folder.name}"
        wait_until_free(name)
        return (
            ray.remote(Worker)
            .options(
                name=name,
                namespace=NAMESPACE,
                num_cpus=request.cpus_per_worker,
                num_gpus=int(request.gpu),
                resources=request.resources,
                max_concurrency=8,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, rank),
            )
            .remote(str(self._folder.root), rank, self._attempt, request.threads_per_worker)
        )

    def _watch(self, running: list[Any], is_ended: Callable[[], bool]) -> Record:
        """Wait for all ranks; return rank 0's outcome. Raises as `train`."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        watchdog = Watchdog(self.workers, self._request.loop.stall_seconds)
        waiting = list(running)
        while waiting:
            done, waiting = ray.wait(waiting, timeout=LOOK_SECONDS)
            for reference in done:
                try:
                    ray.get(reference)
                except RayActorError:
                    raise WorkerLost(f"worker {running.index(reference)} died") from None
                except RayTaskError as error:
                    raise telling_error(running, running.index(reference), error, self._folder.name) from error
            if is_ended():
                raise EndedNow
            if (still := watchdog.look()) and waiting:
                dump_stacks(self._places)
                raise WorkerLost(f"{still}; its stack is in its log")
        outcome: Record = ray.get(running[0])
        return outcome

    def _let_go(self) -> None:
        """Let workers end by themselves: who called their `train` is still to get what it returned."""
        for worker in self.workers:
            worker.__ray_terminate__.remote()
        with contextlib.suppress(ByzerError):  # they stay while their caller holds them, and are killed
            for rank in range(len(self.workers)):
                wait_until_free(f"W-{rank}-{self._folder.name}", LEAVE_SECONDS)


def _answers(asked: list[Any], is_stopped: Callable[[], bool]) -> list[Any]:
    """Return what workers answer, unless the job is stopped before all have. Raises what one of them raises."""
    import ray

    waiting = asked
    while waiting:
        done, waiting = ray.wait(waiting, timeout=LOOK_SECONDS)
        ray.get(done)
        if waiting and is_stopped():
            raise EndedNow
    return list(ray.get(asked))


def wait_until_free(name: str, seconds: float = 20.0) -> None:
    """Wait so long until Ray has forgotten a killed actor of this name.

    Raises:
        ByzerError: it has not.
    """
    import ray

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            ray.get_actor(name, NAMESPACE)
        except ValueError:
            return
        time.sleep(0.1)
    raise ByzerError(f"an actor {name!r} is still running", do="stop the job that it belongs to first")


def _missing(bundle: dict[str, float], workers: int, job: str) -> str:
    """Say what the job's gang waits for, and who has it."""
    import ray

    free = ray.available_resources()
    parts = [
        f"{need * workers:g} {kind} ({free.get(kind, 0):g} free)"
        for kind, need in bundle.items()
        if free.get(kind, 0) < need * workers
    ]
    return f"waiting for {', '.join(parts) or 'room on one node'}: {_holders(job)}"


def _holders(job: str) -> str:
    """Return which other jobs have workers on the cluster, and which models are deployed there."""
    from ray.util import list_named_actors

    actors = [(actor["namespace"], actor["name"]) for actor in list_named_actors(all_namespaces=True)]
    workers = (WORKER.fullmatch(name) for space, name in actors if space == NAMESPACE)
    jobs = {found["job"] for found in workers if found and found["job"] != job}
    replicas = [name.removeprefix(REPLICA) for _, name in actors if name.startswith(REPLICA)]
    models = {name.partition("#")[0].rpartition("/")[2] for name in replicas}
    found = [f"{kind} {', '.join(sorted(names))}" for kind, names in (("job", jobs), ("model", models)) if names]
    if not found:
        return "nodes have too little, or somebody else holds it"
    offer = f'; "%byzerllm pause {min(models)} --for {job}" lends its place until the job has ended' if models else ""
    return f"held by {' and '.join(found)}{offer}"
