"""Ends the embedded cluster when nobody has used it for hours: a small process beside it.

It is in use while a kernel is connected, and while a job or a deployed model runs. Seen from outside, by processes
and connections: whoever asks Ray is connected himself, and takes 80 MB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from byzerllm_adapters.errors import ByzerError

from . import embedded

if TYPE_CHECKING:
    import psutil

VARIABLE = "BYZERLLM_IDLE_HOURS"
IDLE_HOURS = 4.0
LOOK_SECONDS = 30.0

NO_USE = tuple(
    f"ray::{name}" for name in ("IDLE", "DashboardAgent", "RuntimeEnvAgent", "ServeController", "ProxyActor")
)
"""How the titles of those of Ray's processes begin that are there without anybody's work."""


def watch_over(cluster: embedded.EmbeddedCluster) -> None:
    """Start the process that ends a cluster once it is idle for so long as the environment says.

    Raises:
        ByzerError: that is no number of hours.
    """
    if hours := idle_hours():
        subprocess.Popen(
            [sys.executable, "-m", __name__, cluster.address, str(3600 * hours)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it outlives the kernel, as the cluster does
        )


def idle_hours() -> float:
    """Return after how many hours an idle cluster ends; 0: never.

    Raises:
        ByzerError: the environment says something else.
    """
    written = os.environ.get(VARIABLE, str(IDLE_HOURS))
    try:
        hours = float(written)
    except ValueError:
        hours = -1.0
    if not 0 <= hours < float("inf"):
        raise ByzerError(f"{VARIABLE}={written!r} is no number of hours", do="write e.g. 4, or 0 for never")
    return hours


def take_care(address: str, seconds: float) -> None:
    """Wait until a cluster has been idle for so long, and end it; return when it has ended.

    Args:
        address: Its address: where another one is found, this one has ended.
        seconds: How long nobody may have used it, or looked for it.
    """
    idle_since = time.time()
    while True:
        time.sleep(min(LOOK_SECONDS, seconds / 3))
        with embedded.only_one() as last_wanted:
            cluster = embedded.find()
            if cluster is None or cluster.address != address:
                return
            now = time.time()
            if is_used(cluster):
                idle_since = now
            elif now - max(idle_since, last_wanted) >= seconds:
                embedded.stop(cluster)
                return


def is_used(cluster: embedded.EmbeddedCluster) -> bool:
    """Whether a kernel is connected to a cluster, or a job or a deployed model runs on it."""
    import psutil

    family = {process.pid: process for process in _family(cluster)}
    if any(title.startswith("ray::") and not title.startswith(NO_USE) for title in map(_title, family.values())):
        return True
    port = int(cluster.address.rpartition(":")[2])
    return any(
        connection.raddr and connection.raddr.port == port and connection.pid not in family
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED
    )


def _family(cluster: embedded.EmbeddedCluster) -> Iterator[psutil.Process]:
    """Yield a cluster's processes, also those that came up after it, and all that they have started."""
    import psutil

    for process in embedded.daemons(cluster.folder, cluster.address):
        try:
            yield process
            yield from process.children(recursive=True)
        except psutil.NoSuchProcess:
            continue


def _title(process: psutil.Process) -> str:
    import psutil

    try:
        return (process.cmdline() or [""])[0]
    except psutil.NoSuchProcess:
        return ""


if __name__ == "__main__":
    take_care(sys.argv[1], float(sys.argv[2]))
