"""More Ray nodes on this machine, for tests of what happens on many."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.cluster.helpers import eventually

NODE = Path(__file__).parents[2] / "benchmarks" / "ray_node.py"


@contextmanager
def nodes(
    *resources: Mapping[str, float], environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> Iterator[list[int]]:
    """Join nodes to the session's cluster, and end them again; yield the process ids of their parents.

    Args:
        resources: What each node has; ``CPU`` and ``GPU`` among them.
        environment: More environment variables of the nodes' processes.
        prefix: A command that runs the node, such as ``unshare``.
    """
    import ray

    address = ray.get_runtime_context().gcs_address
    before = _alive()
    started: list[subprocess.Popen[bytes]] = []
    try:
        for each in resources:  # one after another: Ray gives each a limited time to come up
            started.append(_start(address, dict(each), environment or {}, prefix))
            eventually(lambda: _alive() == before + len(started), 60)
        yield [process.pid for process in started]
    finally:
        for process in started:
            _leave(process.pid)
        eventually(lambda: _alive() == before, 60)
        for process in started:
            end_tree(process.pid)
            process.wait()


def end_tree(pid: int) -> None:
    """Kill a process and all that it has started; by then it may have ended."""
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _leave(pid: int) -> None:
    """Have a node take its leave of the cluster, which else waits for its heartbeats; by then it may have ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            if child.name() == "raylet":
                child.terminate()


def _start(
    address: str, resources: dict[str, float], environment: Mapping[str, str], prefix: Sequence[str]
) -> subprocess.Popen[bytes]:
    command = [*prefix, sys.executable, str(NODE), address, json.dumps(resources)]
    return subprocess.Popen(command, env=os.environ | dict(environment))


def _alive() -> int:
    import ray

    return sum(node["Alive"] for node in ray.nodes())
