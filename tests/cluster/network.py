"""Two machines of a network, played by this one: network namespaces with their own addresses, and a cluster on them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from byzerllm_magics.cluster import embedded
from tests.cluster.nodes import end_tree

QUICK_HEALTH_CHECKS = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""A node that does not answer is dead after eight seconds; Ray's own settings take longer."""

PORT = 6379


@dataclass(frozen=True)
class Machine:
    """A network namespace.

    Attributes:
        name: Its name.
        address: Its IP in the network that it shares with the other.
        link: Its end of the link.
    """

    name: str
    address: str
    link: str

    def command(self, *command: str) -> list[str]:
        """Return a command line that runs ``command`` there."""
        return ["ip", "netns", "exec", self.name, *command]

    def set_link(self, state: str) -> None:
        """Cut the link ("down"), or mend it ("up")."""
        _run("ip", "-n", self.name, "link", "set", self.link, state)


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Make two namespaces with a link between them; remove them afterwards.

    Raises:
        PermissionError: this user may not.
    """
    if os.geteuid() != 0:
        raise PermissionError("only root makes network namespaces")
    mark = secrets.token_hex(2)
    left, right = (Machine(f"bz{mark}{side}", f"10.77.0.{n}", f"bz{mark}{side}") for n, side in ((1, "a"), (2, "b")))
    with ExitStack() as ends:
        for machine in (left, right):
            _run("ip", "netns", "add", machine.name)
            ends.callback(_run, "ip", "netns", "del", machine.name)
        _run(
            "ip",
            "link",
            "add",
            left.link,
            "netns",
            left.name,
            "type",
            "veth",
            "peer",
            "name",
            right.link,
            "netns",
            right.name,
        )
        for machine in (left, right):
            _run("ip", "-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", machine.link)
            _run("ip", "-n", machine.name, "link", "set", "lo", "up")
            machine.set_link("up")
        yield left, right


@contextmanager
def ray_on(machine: Machine, temp: Path, *, head: Machine | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Ray node with one CPU and one ``apart`` there; the head itself, or one that joins ``head``."""
    embedded.ensure_token()
    role = (
        ["--head", f"--port={PORT}", "--include-dashboard=false"]
        if head is None
        else [f"--address={head.address}:{PORT}"]
    )
    command = [
        str(Path(sys.executable).with_name("ray")), "start", *role, f"--node-ip-address={machine.address}",
        "--num-cpus=1", '--resources={"apart": 1}', "--block", "--disable-usage-stats",
        *([f"--temp-dir={temp}"] if head is None else []),
    ]  # fmt: skip
    node = subprocess.Popen(
        machine.command(*command), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield node
    finally:
        end_tree(node.pid)
        node.wait()


def environment() -> dict[str, str]:
    """Return the environment of processes on these machines: Ray listens at their addresses."""
    ours = embedded.ENVIRONMENT | QUICK_HEALTH_CHECKS
    return {**os.environ, **ours, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
