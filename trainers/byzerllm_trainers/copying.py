"""Keeps the copy of a running job up with its folder, from the job's coordinator (see `mirror`)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping

from .job_folder import JobFolder, LeaseLost
from .mirror import EVENTS, mirror_of, unreachable

LOOK_SECONDS = 1.0
"""Between looks for a new event: a checkpoint is one."""

SEND_SECONDS = 10.0
"""After this long the steps are sent without one, and it is seen whether the job went on elsewhere."""

PATIENCE_SECONDS = 600.0
"""So long an attempt waits for an address that cannot be reached, before it begins."""

LAST_SECONDS = 60.0
"""So long an ended job tries to send how it ended."""


def store_settings() -> dict[str, str]:
    """Return what this process' environment says of keys and servers; a coordinator has the environment of its node."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


class Copying:
    """Sends what is new in a job's folder, from a thread; nothing where the job has no address.

    Args:
        folder: The job's.
        settings: See `store_settings`.
        tell: Called with a sentence for the user.
        superseded: Called when the job goes on elsewhere.
    """

    def __init__(
        self,
        folder: JobFolder,
        settings: Mapping[str, str],
        *,
        tell: Callable[[str], None],
        superseded: Callable[[], None],
    ) -> None:
        os.environ.update(settings)
        self._folder, self._tell, self._superseded = folder, tell, superseded
        self._mirror = mirror_of(folder)
        self._attempt, self._seen, self._sent_at = 0, -1, 0.0
        self._one_at_a_time = threading.Lock()
        self._ended = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._keep_up, name="copying", daemon=True)

    def claim(self, attempt: int, owner: str) -> None:
        """Claim an attempt at the address, too, and keep the copy up from now on.

        Raises:
            LeaseLost: the job goes on elsewhere.
            ByzerError: the address cannot be reached.
        """
        if self._mirror is None:
            return
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self._one_at_a_time:
            while True:
                try:
                    self._mirror.claim(attempt, owner)
                    break
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise unreachable(self._mirror.address, error) from error
                    self._complain(error)
                time.sleep(LOOK_SECONDS)
            self._attempt = attempt
        if not self._thread.is_alive() and not self._ended.is_set():
            self._thread.start()

    def finish(self) -> None:
        """Send the rest, and say so where that cannot be done."""
        self._ended.set()
        if self._mirror is None or not self._attempt:
            return
        self._thread.join()
        deadline = time.monotonic() + LAST_SECONDS
        while not self._send():
            if time.monotonic() > deadline:
                self._tell(f"{self._mirror.address} lacks the job's end")
                return
            time.sleep(LOOK_SECONDS)

    def _keep_up(self) -> None:
        """Send what is new until the job has ended, or goes on elsewhere."""
        try:
            while not self._ended.wait(LOOK_SECONDS):
                size = _size_of(self._folder)
                if size != self._seen or time.monotonic() - self._sent_at > SEND_SECONDS:
                    self._seen = size
                    self._send()
        except LeaseLost as lost:
            print(lost)
            self._superseded()

    def _send(self) -> bool:
        """Send what is new; return whether that went well. Raises `LeaseLost`."""
        assert self._mirror is not None
        with self._one_at_a_time:
            self._sent_at = time.monotonic()
            try:
                self._mirror.push(self._attempt)
            except OSError as error:
                self._complain(error)
                return False
            if self._failing:
                self._failing = False
                self._tell(f"{self._mirror.address} is up to date again")
            return True

    def _complain(self, error: OSError) -> None:
        """Say that it cannot be reached: once, until it was."""
        print(error)
        if not self._failing:
            self._failing = True
            assert self._mirror is not None
            self._tell(f"{unreachable(self._mirror.address, error).what}; the job's folder on disk has everything")


def _size_of(folder: JobFolder) -> int:
    path = folder.root / EVENTS
    return path.stat().st_size if path.exists() else 0
