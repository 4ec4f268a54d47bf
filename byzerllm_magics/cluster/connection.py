"""Connecting this kernel to Ray: the embedded cluster, or the one whose address is given."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byzerllm_adapters.errors import ByzerError

from . import caretaker, embedded

NAMESPACE = "byzerllm"
_connecting = threading.RLock()
_connected_to = ""
"""The address as it was given, e.g. with a host's name; Ray knows the resolved one only."""


@dataclass(frozen=True)
class ClusterInfo:
    """What a setup card shows.

    Attributes:
        address: ``host:port`` of the cluster.
        embedded: Whether it is this user's own on this machine.
        dashboard: Address of its dashboard; empty when unknown.
        nodes: Live nodes.
        total: Resources in all: ``CPU``, ``GPU``, ``memory`` (bytes).
        free: The same, not reserved by anything.
    """

    address: str
    embedded: bool
    dashboard: str
    nodes: int
    total: dict[str, float]
    free: dict[str, float]


def is_connected() -> bool:
    """Whether this process is connected to Ray; does not import it."""
    import sys

    is_initialized = getattr(sys.modules.get("ray"), "is_initialized", None)  # another thread may be importing it
    return is_initialized is not None and bool(is_initialized())


def connect(address: str | None = None, *, num_cpus: int | None = None, start: bool = True) -> ClusterInfo:
    """Connect to ``address`` (else ``RAY_ADDRESS``, else the embedded cluster, started when there is none).

    Call it on a thread that stays: when the thread that connected ends, Ray's next call hangs.

    Args:
        address: ``host:port``, or ``auto``.
        num_cpus: CPUs of an embedded cluster that is started; all of the machine's by default.
        start: Whether to start the embedded cluster when it is not running.

    Raises:
        ByzerError: no cluster there, another one is connected already, or the token is missing or wrong.
    """
    with _connecting:
        return _connect(address or os.environ.get("RAY_ADDRESS"), num_cpus, start)


def connect_behind(address: str | None = None) -> None:
    """Connect to a cluster that runs without holding the caller; what goes wrong shows when the cluster is asked."""

    def stay() -> None:
        with contextlib.suppress(ByzerError):
            connect(address, start=False)
            threading.Event().wait()  # see `connect`: this thread has to stay

    if not is_connected():
        threading.Thread(target=stay, name="connection", daemon=True).start()


def runs(address: str | None = None) -> bool:
    """Whether there is a cluster to connect to without starting one; that of an address is taken to run."""
    return is_connected() or bool(address or os.environ.get("RAY_ADDRESS")) or embedded.find() is not None


def _connect(address: str | None, num_cpus: int | None, start: bool) -> ClusterInfo:
    if is_connected():
        return _refuse_another(address)
    embedded.adopt_environment()
    if address:
        return _init(address)
    with embedded.only_one(wanted=True):
        cluster = embedded.find()
        if cluster is None and not start:
            raise ByzerError("no cluster is running", do="%%byzerllm setup starts one, or connects with rayAddress=…")
        if cluster is None:
            caretaker.idle_hours()  # refused before anything starts
            starting = embedded.Starting(num_cpus)
            import ray  # noqa: F401 - takes seconds, as does the start

            try:
                cluster = starting.finish()
            except embedded.TooSlowError:  # Ray gives its node 30 s, which a busy machine may exceed
                cluster = embedded.Starting(num_cpus).finish()
            caretaker.watch_over(cluster)
    return _init(cluster.address)


def cluster_info() -> ClusterInfo:
    """Describe the cluster that this process is connected to."""
    import ray

    address = ray.get_runtime_context().gcs_address
    own = embedded.find()
    is_own = own is not None and own.address == address
    url = ray.worker.get_dashboard_url()
    return ClusterInfo(
        address=address,
        embedded=is_own,
        dashboard=own.dashboard if own and is_own else f"http://{url}" if url else "",
        nodes=sum(node["Alive"] for node in ray.nodes()),
        total=ray.cluster_resources(),
        free=ray.available_resources(),
    )


def disconnect() -> None:
    """Leave the cluster; it goes on."""
    if is_connected():
        import ray

        ray.shutdown()


def shutdown() -> bool:
    """Disconnect, and end the embedded cluster; return whether there was one.

    Connected to another cluster, only the connection ends.
    """
    cluster = embedded.find()
    elsewhere = is_connected() and (cluster is None or cluster.address != _gcs_address())
    disconnect()
    if cluster is None or elsewhere:
        return False
    embedded.stop(cluster)
    return True


def _gcs_address() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


def _init(address: str) -> ClusterInfo:
    """Connect and describe; in a cluster without GPUs, keep DeepSpeed from looking for one and saying so in a cell."""
    import ray

    if not os.environ.get("RAY_AUTH_TOKEN") and not embedded.token_file().exists():
        raise ByzerError(
            f"the cluster at {address} asks for a token and there is none in {embedded.token_file()}",
            do="copy the file of that name from the cluster's head node",
        )
    ray_says = logging.getLogger("ray._private.worker")
    level = ray_says.level
    ray_says.setLevel(logging.ERROR)  # it warns that on a thread it leaves the signal handlers as they are
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,  # a worker's prints would land in whatever cell runs
            logging_level=logging.ERROR,
            runtime_env=_shipped(address),
        )
    except (ConnectionError, RuntimeError) as error:
        raise ByzerError(
            f"no Ray cluster answers at {address}",
            where=str(error).strip().splitlines()[0][:200],
            do="is it running, is this machine a node of it, and is the token in "
            f"{embedded.token_file()} its own? From elsewhere, run a kernel on one of its nodes",
        ) from None
    finally:
        ray_says.setLevel(level)
    _keep_out_of_cells()
    global _connected_to  # noqa: PLW0603 - as is Ray's connection itself
    _connected_to = address
    info = cluster_info()
    if not info.total.get("GPU"):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    return info


def _keep_out_of_cells() -> None:
    """Have what Ray says of a process that died go to the log: a thread prints it into whatever cell runs.

    Ray has no setting for it. A job's card says what died, and what is done about it.
    """
    from ray._private import worker

    def log(said: Mapping[str, Any], **_: Any) -> None:
        logging.getLogger(__name__).info("%s", "\n".join(map(str, said.get("lines", ()))))

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = log


def _shipped(address: str) -> dict[str, Any] | None:
    """Return the runtime environment that brings our packages to the nodes of a cluster, in this kernel's version.

    The embedded cluster runs in this very environment, where workers start sooner without.
    """
    own = embedded.find()
    if own is not None and own.address == address:
        return None
    import byzerllm_adapters
    import byzerllm_magics
    import byzerllm_trainers

    packages = (byzerllm_magics, byzerllm_trainers, byzerllm_adapters)
    return {"py_modules": [str(Path(str(package.__file__)).parent) for package in packages]}


def _refuse_another(address: str | None) -> ClusterInfo:
    """Return what is connected, unless that is another cluster than ``address`` or it is gone."""
    import ray

    try:
        info = cluster_info()
    except Exception as error:  # noqa: BLE001 - Ray raises many kinds when its processes are gone
        ray.shutdown()
        raise ByzerError(
            "the connection to the Ray cluster is lost", where=str(error)[:200], do="run the cell again to connect anew"
        ) from None
    if address and address not in (info.address, "auto", _connected_to):
        raise ByzerError(
            f"this kernel is connected to {info.address}", do='"%byzerllm shutdown" first, or restart the kernel'
        )
    return info
