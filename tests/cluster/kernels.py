"""A real kernel, driven through its messages as a notebook's page drives it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty
from typing import Any

from jupyter_client import BlockingKernelClient, KernelManager


@dataclass
class Cell:
    """What a cell showed.

    Attributes:
        status: ``ok`` or ``error``.
        printed: What it printed.
        pieces: What its widgets sent to the page as they went: the pieces of an answer.
        displays: Bundles by display id (or a number of its own), each as its last update left it.
        traceback: Lines of its error.
        seconds: From the request to the reply.
    """

    status: str = ""
    printed: str = ""
    pieces: list[str] = field(default_factory=list)
    displays: dict[str, dict[str, Any]] = field(default_factory=dict)
    traceback: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def shown(self, kind: str) -> list[Any]:
        """Everything on display of one MIME type."""
        return [data[kind] for data in self.displays.values() if data.get(kind)]


class Kernel:
    """A Python kernel.

    Args:
        wait: False: `wait` follows; others may start meanwhile.
    """

    def __init__(self, *, wait: bool = True) -> None:
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel()
        self._client = self._connect()
        if wait:
            self.wait()

    def _connect(self) -> BlockingKernelClient:
        client = self._manager.client()
        client.start_channels()
        return client

    def wait(self) -> None:
        """Wait until it takes cells."""
        self._client.wait_for_ready(timeout=120)

    def restart(self) -> None:
        """A new process, as "Restart Kernel" gives one."""
        self._client.stop_channels()
        self._manager.restart_kernel(now=True)
        self._client = self._connect()
        self.wait()

    def close(self) -> None:
        """End the process."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def run(self, code: str, *, interrupt_when: Callable[[Cell], bool] | None = None, seconds: float = 120) -> Cell:
        """Run a cell to its end; interrupt it once, as soon as ``interrupt_when`` says so of what it showed."""
        cell, begun, request = Cell(), time.monotonic(), self._client.execute(code)
        while time.monotonic() - begun < seconds:
            try:
                message = self._client.get_iopub_msg(timeout=0.2)
            except Empty:
                message = None
            if message is not None and message["parent_header"].get("msg_id") == request:
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    break
                self._take(cell, message["msg_type"], message["content"])
            if interrupt_when is not None and interrupt_when(cell):
                interrupt_when = None
                self._manager.interrupt_kernel()
        else:
            raise AssertionError(f"the cell did not end within {seconds:g} s: {code}")
        cell.seconds = time.monotonic() - begun
        reply = self._client.get_shell_msg(timeout=30)
        while reply["parent_header"].get("msg_id") != request:  # what waiting for a restarted kernel left
            reply = self._client.get_shell_msg(timeout=30)
        cell.status = reply["content"]["status"]
        return cell

    @staticmethod
    def _take(cell: Cell, kind: str, content: dict[str, Any]) -> None:
        match kind:
            case "stream":
                cell.printed += content["text"]
            case "error":
                cell.traceback = content["traceback"]
            case "display_data" | "update_display_data" | "execute_result":
                name = content.get("transient", {}).get("display_id", f"#{len(cell.displays)}")
                cell.displays[name] = content["data"]
            case "comm_msg" if content["data"].get("method") == "custom":
                cell.pieces.append(content["data"]["content"].get("piece", ""))
