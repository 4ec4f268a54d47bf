"""The processes of a gang, wherever they are: who and where each is, what it does, and its certain end.

Ray's own kill asks a process to end; one that is stopped, or hangs in a collective, may not hear of it. What is
done here is done by Ray tasks on the processes' nodes, by process id and start time; a node that cannot be reached
is left alone: Ray ends what ran there when it declares the node dead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

REACH_SECONDS = 5.0
"""A node that does not answer in this time is not reached."""

DUMP_SECONDS = 0.5
"""A process writes its stacks within this time."""

SAME_SECONDS = 2.0
"""A process' start is reckoned from the machine's, which moves when its clock is set right."""

Process = tuple[int, float]
"""A process id and when it started, in seconds since the epoch: ids are used again."""


@dataclass(frozen=True)
class Place:
    """Where a worker is.

    Attributes:
        address: Its node's IP.
        port: One that is free there.
        node: Ray's id of the node.
        process: The worker's.
        devices: The GPUs that Ray shows it, as CUDA_VISIBLE_DEVICES; empty: none.
        versions: Of Python and the key libraries there.
    """

    address: str
    port: int
    node: str = ""
    process: Process = (0, 0.0)
    devices: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def this_process() -> Process:
    """Return the id and start of the process that calls."""
    import psutil

    return os.getpid(), psutil.Process().create_time()


def end_processes(places: Sequence[Place]) -> None:
    """Kill what is still there of the workers' processes, and wait until they are gone."""
    _on_their_nodes(places, kill)


def dump_stacks(places: Sequence[Place]) -> None:
    """Have every worker write the Python stacks of its threads into its log, also one that is stopped."""
    _on_their_nodes(places, signal_dump)


def kill(processes: Sequence[Process]) -> None:
    """Kill processes of this machine that are still there, and wait until they are gone."""
    import psutil

    there = _there(processes)
    for process in there:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just gone
            process.kill()
    psutil.wait_procs(there, timeout=REACH_SECONDS)


def signal_dump(processes: Sequence[Process]) -> None:
    """Signal processes of this machine to write their stacks (see `faulthandler`), and give them time for it."""
    import psutil

    for process in _there(processes):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGUSR1)
            process.send_signal(signal.SIGCONT)
    time.sleep(DUMP_SECONDS)


def _there(processes: Sequence[Process]) -> list[Any]:
    import psutil

    found = []
    for pid, started in processes:
        try:
            process = psutil.Process(pid)
            if abs(process.create_time() - started) < SAME_SECONDS:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def _on_their_nodes(places: Sequence[Place], work: Callable[[Sequence[Process]], None]) -> None:
    """Call ``work`` with the processes of each node, there; nodes that do not answer in time are left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    processes: dict[str, list[Process]] = {}
    for place in places:
        processes.setdefault(place.node, []).append(place.process)
    here = ray.get_runtime_context().get_node_id()
    tasks = [
        ray.remote(num_cpus=0, max_retries=0)(work)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote(theirs)
        for node, theirs in processes.items()
        if node != here
    ]
    if here in processes:  # no task, whose process may have to be started first
        work(processes[here])
    _, unreached = ray.wait(tasks, num_returns=len(tasks), timeout=REACH_SECONDS) if tasks else ([], [])
    for task in unreached:
        ray.cancel(task, force=True)
