"""More Ray nodes on this machine, for tests of what happens on many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.cluster.helpers import eventually

SEVERAL_NODES = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
"""The embedded cluster is of one node, and keeps its listeners on the loopback address by saying so."""


@contextmanager
def nodes(
    *resources: Mapping[str, float], environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> Iterator[list[int]]:
    """Join nodes to the session's cluster, and end them again; yield the process ids of their ``ray start``.

    Args:
        resources: What each node has; ``CPU`` and ``GPU`` among them.
        environment: More environment variables of the nodes' processes.
        prefix: A command that runs ``ray start``, such as ``unshare``.
    """
    import ray

    address = ray.get_runtime_context().gcs_address
    before = _alive()
    started = [_start(address, dict(each), environment or {}, prefix) for each in resources]
    try:
        eventually(lambda: _alive() == before + len(started), 120)
        yield [process.pid for process in started]
    finally:
        for process in started:
            end_tree(process.pid)
            process.wait()
        eventually(lambda: _alive() == before, 60)


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


def _start(
    address: str, resources: dict[str, float], environment: Mapping[str, str], prefix: Sequence[str]
) -> subprocess.Popen[bytes]:
    command = [
        *prefix, str(Path(sys.executable).with_name("ray")), "start", f"--address={address}",
        "--node-ip-address=127.0.0.1",
        f"--num-cpus={resources.pop('CPU', 1):g}", f"--num-gpus={resources.pop('GPU', 0):g}",
        f"--resources={json.dumps(resources)}", "--block", "--disable-usage-stats",
    ]  # fmt: skip
    return subprocess.Popen(
        command,
        env=os.environ | SEVERAL_NODES | dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _alive() -> int:
    import ray

    return sum(node["Alive"] for node in ray.nodes())
