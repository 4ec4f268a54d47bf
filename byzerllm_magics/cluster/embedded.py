"""The embedded cluster: Ray on this machine, started outside the kernel, so that it outlives it.

One per user. Its address and process ids are kept in the state folder: the next kernel finds it there, and
`stop` ends exactly those processes, never Ray's machine-wide ``ray stop``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.job_folder import read_json, write_json

from ..state_folder import state_folder

if TYPE_CHECKING:
    import psutil

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",  # a driver that is given an address does not turn it on by itself
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # keeps every listener on the loopback address
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",  # Serve's own remarks would land in the cell that runs
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "0",  # it comes up beside the rest: "ray start" takes 11 s, 15 s when it waits
    "RAY_agent_register_timeout_ms": "120000",  # on a busy machine a raylet would give up its agents, and end
    # a node whose processes are gone is dead after a second, and not after 17; one that is slow has 10 s an answer
    "RAY_health_check_period_ms": "250",
    "RAY_health_check_failure_threshold": "3",
    # an idle cluster with one model takes 10 % of a core with these two, 14 % without
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    "RAY_enable_metrics_collection": "0",
}
START_SECONDS = 120
VITAL = ("gcs_server", "raylet")


class TooSlowError(ByzerError):
    """Ray gave up waiting for its own processes."""


@dataclass(frozen=True)
class EmbeddedCluster:
    """A running embedded cluster.

    Attributes:
        address: ``host:port`` for ``ray.init``.
        folder: Ray's session folder, removed with the cluster.
        dashboard: The dashboard's address in a browser on this machine.
        processes: Process id -> creation time of all its processes: an id alone may be reused.
        vital: Ids of those without which there is no cluster; the others are monitors.
    """

    address: str
    folder: str
    dashboard: str
    processes: dict[int, float]
    vital: list[int]

    def is_running(self) -> bool:
        """Whether the processes that it cannot do without live."""
        return bool(self.vital) and all(_lives(pid, self.processes[pid]) for pid in self.vital)


def adopt_environment() -> None:
    """Set `ENVIRONMENT` for this process; a Ray that a cell above has imported already would not look at it again."""
    os.environ.update(ENVIRONMENT)
    if "ray" in sys.modules:
        from ray._private import ray_constants
        from ray._raylet import Config  # type: ignore[attr-defined]  # its types do not have it

        Config.initialize("")  # the token
        ray_constants.ENABLE_RAY_CLUSTER = False  # the loopback address, else taken for another of this machine's


def find() -> EmbeddedCluster | None:
    """Return this user's embedded cluster, if it runs; what is left of a broken one is ended."""
    path = _record()
    if not path.exists():
        return None
    content = read_json(path)
    processes = {int(pid): created for pid, created in content.pop("processes").items()}
    try:
        cluster = EmbeddedCluster(processes=processes, **content)
    except TypeError:  # another version wrote it
        cluster = EmbeddedCluster("", "", "", processes, vital=[])
    if cluster.is_running():
        return cluster
    stop(cluster)
    return None


@contextmanager
def only_one(*, wanted: bool = False) -> Iterator[float]:
    """Let one process at a time look for the cluster and start or end it: two notebooks opened together share one.

    Yields when somebody last wanted it, in seconds since the epoch.

    Args:
        wanted: Whether the caller does: it will be connected in a moment.
    """
    with (state_folder() / "embedded.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if wanted:
            os.utime(lock.fileno())
        yield os.fstat(lock.fileno()).st_mtime


class Starting:
    """An embedded cluster on its way up, so that the kernel can import Ray meanwhile.

    Args:
        num_cpus: CPUs that Ray counts; None: as many as there are.
    """

    def __init__(self, num_cpus: int | None = None) -> None:
        ensure_token()
        self._port, self._dashboard, client = _free_ports(3)  # "ray start" refuses to go without a client port
        # a short path: Ray puts Unix sockets below it, and their paths may have 107 characters
        self._temp = Path(tempfile.mkdtemp(prefix="byzer-"))
        self._log = state_folder() / "ray-start.log"
        command = [
            str(_ray()), "start", "--head", "--node-ip-address=127.0.0.1", f"--port={self._port}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={self._dashboard}",
            f"--ray-client-server-port={client}", f"--temp-dir={self._temp}", "--disable-usage-stats",
        ]  # fmt: skip
        if num_cpus:
            command.append(f"--num-cpus={num_cpus}")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt of the notebook must not reach it
            )

    def finish(self) -> EmbeddedCluster:
        """Wait until it is up and record it.

        Raises:
            ByzerError: Ray did not start; its last words and its log.
        """
        try:
            code = self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = -1
        found = daemons(str(self._temp), f"127.0.0.1:{self._port}")
        cluster = EmbeddedCluster(
            f"127.0.0.1:{self._port}",
            str(self._temp),
            f"http://127.0.0.1:{self._dashboard}",
            processes={process.pid: process.create_time() for process in found},
            vital=[process.pid for process in found if process.name() in VITAL],
        )
        if code:
            stop(cluster, keep_folder=True)
            last = [line for line in self._log.read_text().splitlines() if line.strip()][-1:]
            kind = TooSlowError if "timed out" in " ".join(last) else ByzerError
            raise kind("the embedded Ray cluster did not start", where=" ".join(last), do=f"see {self._log}")
        write_json(_record(), asdict(cluster))
        return cluster


def stop(cluster: EmbeddedCluster, seconds: float = 3.0, *, keep_folder: bool = False) -> None:
    """End the cluster's processes: politely, then by force after ``seconds``; remove its folder."""
    import psutil

    _record().unlink(missing_ok=True)
    doomed = [psutil.Process(pid) for pid, created in cluster.processes.items() if _lives(pid, created)]
    for process in list(doomed):  # a raylet's workers end with it, but not at once
        doomed += [child for child in process.children(recursive=True) if child not in doomed]
    for process in doomed:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(doomed, timeout=seconds)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=seconds)
    if not keep_folder:
        shutil.rmtree(cluster.folder, ignore_errors=True)


def token_file() -> Path:
    """Where Ray keeps the token that every connection needs."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def ensure_token() -> None:
    """Let Ray create its token when there is none; it is never printed."""
    if os.environ.get("RAY_AUTH_TOKEN") or token_file().exists():
        return
    subprocess.run([str(_ray()), "get-auth-token", "--generate"], check=True, capture_output=True)


def _ray() -> Path:
    """Return the ``ray`` command of this very environment."""
    beside = Path(sys.executable).with_name("ray")
    found = beside if beside.exists() else shutil.which("ray")
    if not found:
        raise ByzerError("the ray command is not installed beside this Python", do="pip install 'ray[default,serve]'")
    return Path(found)


def _record() -> Path:
    return state_folder() / "embedded.json"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def daemons(folder: str, address: str) -> list[psutil.Process]:
    """Find a cluster's daemons by what only their command lines hold; workers come and go.

    Args:
        folder: Ray's session folder.
        address: ``host:port``.
    """
    import psutil

    marks = (folder, f"--address={address}")
    found = []
    for process in psutil.process_iter(["cmdline", "create_time", "name"]):
        arguments = process.info["cmdline"] or []
        is_worker = any(argument.endswith("default_worker.py") for argument in arguments)
        if any(mark in argument for mark in marks for argument in arguments) and not is_worker:
            found.append(process)
    return found


def _lives(pid: int, created: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        return process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    import psutil

    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
