"""Work on the cluster that a cell waits for: Ray tasks that tell how far they are, and end with an interrupt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from . import room
from .deployments import ROOM_SECONDS, cause

if TYPE_CHECKING:
    from ..parameters import SetupSettings

Record = dict[str, Any]
Work = Callable[[], Iterator[str | Record]]
"""What a task does: it yields what it is doing, and last its result. It is pickled, and so is what it yields."""

CPU_SHARE = 0.75
"""Share of the largest node's CPUs that a task reserves where no GPU is: one at a time, beside a deployed model."""

GRACE_SECONDS = 5.0
"""How long a cancelled task may clean up behind itself."""

LOOK_SECONDS = 0.25
"""How often the cell looks whether it was interrupted."""


@dataclass(frozen=True)
class Reservation:
    """What each task holds: CPUs, GPUs, and custom resources."""

    cpus: float
    gpus: float
    resources: Mapping[str, float]


def reservation(settings: SetupSettings) -> Reservation:
    """Return what a task with one model takes: a GPU where the cluster has one, else most of a node's CPUs.

    ``num_cpus`` and ``resource.NAME`` of the settings have the last word.

    Raises:
        ByzerError: no node has that much.
    """
    import ray

    gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
    cores = max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
    cpus = settings.num_cpus or (1.0 if gpus else CPU_SHARE * cores)
    room.check(cpus, gpus, what="a task")
    return Reservation(cpus, gpus, settings.resource.model_extra or {})


def run_task(name: str, work: Work, takes: Reservation, tell: Callable[[str], None]) -> Record:
    """Run one task and return its result; see `run_tasks`.

    Raises:
        ByzerError: it failed, or was interrupted.
    """
    [result] = run_tasks([(name, work)], takes, tell)
    if isinstance(result, ByzerError):
        raise result
    return result


def run_tasks(
    works: Sequence[tuple[str, Work]], takes: Reservation, tell: Callable[[str], None]
) -> list[Record | ByzerError]:
    """Run tasks, as many at a time as there is room for; return each one's result or error, in their order.

    Args:
        works: A name and what is to be done, each.
        takes: What each of them holds.
        tell: Told what they are doing, and what they wait for.

    Raises:
        ByzerError: interrupted; all of them were ended.
    """
    import ray

    remote = ray.remote(_steps).options(
        num_cpus=takes.cpus,
        num_gpus=takes.gpus,
        resources=dict(takes.resources),
        max_retries=0,
        num_returns="streaming",
    )
    streams = [remote.remote(work) for _, work in works]
    results: list[Record | ByzerError | None] = [None] * len(works)
    open_ones = dict(enumerate(streams))
    begun, heard = time.monotonic(), False
    try:
        while open_ones:
            ready, _ = ray.wait(list(open_ones.values()), timeout=LOOK_SECONDS, fetch_local=False)
            if not ready and not heard and time.monotonic() - begun > ROOM_SECONDS:
                tell(f"waiting: {room.missing(takes.cpus, takes.gpus, besides='', what='a task')}")
            for number, stream in list(open_ones.items()):
                if not any(stream is each for each in ready):
                    continue
                heard = True
                try:
                    item = ray.get(next(stream))
                except StopIteration:
                    del open_ones[number]
                    continue
                except ray.exceptions.RayError as error:
                    del open_ones[number]
                    results[number] = _told(error, works[number][0])
                    continue
                if isinstance(item, str):
                    tell(f"{works[number][0]}: {item}")
                else:
                    results[number] = item
    except BaseException as error:
        for stream in open_ones.values():
            ray.cancel(stream)
        threading.Thread(target=_kill_the_rest, args=(list(open_ones.values()),), name="ending", daemon=True).start()
        if isinstance(error, KeyboardInterrupt):
            names = ", ".join(works[number][0] for number in open_ones)
            raise ByzerError(f"interrupted: {names}: ended, and nothing of it is left") from None
        raise
    assert all(result is not None for result in results), "every task yields its result last"
    return [result for result in results if result is not None]


def _kill_the_rest(streams: Sequence[Any]) -> None:
    """End the processes of cancelled tasks that go on: one that sleeps or computes outside Python hears of nothing."""
    import ray

    deadline = time.monotonic() + GRACE_SECONDS
    for stream in streams:
        try:
            ray.get(stream.completed(), timeout=max(0.0, deadline - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            ray.cancel(stream, force=True)
        except ray.exceptions.RayError:  # it was cancelled, as it should be
            continue


def _steps(work: Work) -> Iterator[str | Record]:
    """Do the work in a task's process, on all cores of its node: Ray gives a task as many threads as it reserves."""
    import psutil
    import torch

    torch.set_num_threads(psutil.cpu_count(logical=False) or 1)
    yield from work()


def _told(error: Any, name: str) -> ByzerError:
    """Return what ended a task as the user's error."""
    from ray.exceptions import RayTaskError

    if isinstance(error, RayTaskError):
        known = cause(error)
        assert isinstance(known, ByzerError), "`cause` makes every task's error one"
        return known
    return ByzerError(
        f"{name}: its process died ({type(error).__name__})",
        do="out of memory is the usual reason: take a smaller dtype, or a node with more",
    )
