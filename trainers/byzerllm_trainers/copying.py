"""Keeps the copy of a running job up with its folder, from the job's coordinator (see `mirror`)."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping

from .job_folder import JobFolder, LeaseLost
from .mirror import EVENTS, Mirror, mirror_of
from .object_store import unreachable

LOOK_SECONDS = 1.0
"""Between looks for a new event: a checkpoint is one."""

SEND_SECONDS = 10.0
"""After this long the steps are sent without one, and it is seen whether the job went on elsewhere."""

PATIENCE_SECONDS = 60.0
"""So long a job that somebody has just started waits for an address that cannot be reached."""

LAST_SECONDS = 60.0
"""So long an ended job tries again to send how it ended."""


class Copying:
    """Sends what is new in a job's folder, from a thread; nothing where the job has no address.

    Args:
        folder: The job's.
        settings: See `object_store.store_settings`.
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
        self._folder, self._tell, self._superseded = folder, tell, superseded
        self._mirror = mirror_of(folder, settings)
        self._wanted: tuple[int, str] | None = None
        self._claimed: tuple[int, str] | None = None
        self._seen, self._sent_at = -1, 0.0
        self._ended = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._keep_up, name="copying", daemon=True)

    def claim(self, attempt: int, owner: str, *, wait: bool) -> None:
        """Claim an attempt at the address, too, and keep the copy up from now on.

        Args:
            attempt: Its number.
            owner: Who holds it.
            wait: Whether it has to be ours before this returns: somebody has started the job, perhaps elsewhere, too.
                Else the thread claims it before it sends anything; training does not wait.

        Raises:
            LeaseLost: the job goes on elsewhere.
            ByzerError: the address cannot be reached.
        """
        if self._mirror is None:
            return
        self._wanted = (attempt, owner)
        if wait:
            self._claim_now(self._mirror)
        if self._thread.ident is None:
            self._thread.start()

    def finish(self) -> None:
        """Send the rest, and say so where that cannot be done.

        Raises:
            LeaseLost: the job goes on elsewhere.
        """
        self._ended.set()
        if self._mirror is None or self._wanted is None:
            return
        if self._thread.ident is not None:
            self._thread.join()
        deadline = time.monotonic() + LAST_SECONDS
        while not self._send(self._mirror, briefly=False):
            if time.monotonic() > deadline:
                self._tell(f"{self._mirror.address} lacks the job's end; the job's folder on disk has everything")
                return
            time.sleep(LOOK_SECONDS)

    def _claim_now(self, mirror: Mirror) -> None:
        assert self._wanted is not None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                mirror.claim(*self._wanted)
            except OSError as error:
                print(error)
                if time.monotonic() > deadline:
                    raise unreachable(mirror.address, error) from error
                time.sleep(LOOK_SECONDS)
            else:
                self._claimed = self._wanted
                return

    def _keep_up(self) -> None:
        """Send what is new until the job has ended, or goes on elsewhere."""
        assert self._mirror is not None
        try:
            while not self._ended.wait(LOOK_SECONDS):
                happened = not self._failing and self._has_happened()
                if happened or time.monotonic() - self._sent_at > SEND_SECONDS:
                    self._send(self._mirror, briefly=not (happened or self._failing))
        except LeaseLost as lost:
            print(lost)
            self._superseded()

    def _has_happened(self) -> bool:
        """Whether there is an event that was not seen before."""
        path = self._folder.root / EVENTS
        try:
            size = path.stat().st_size
        except OSError:  # not there yet, or the disk's trouble, which is not the copy's
            return False
        self._seen, before = size, self._seen
        return size != before

    def _send(self, mirror: Mirror, *, briefly: bool) -> bool:
        """Claim what is to be claimed, and send what is new; return whether that went well. Raises `LeaseLost`."""
        self._sent_at = time.monotonic()
        assert self._wanted is not None
        wanted = self._wanted
        try:
            if self._claimed != wanted:
                mirror.claim(*wanted)
                self._claimed = wanted
            mirror.push(wanted[0], briefly=briefly)
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, training goes on, and later looks try again
            self._complain(mirror, error)
            return False
        if self._failing:
            self._failing = False
            self._tell(f"{mirror.address} is up to date again")
        return True

    def _complain(self, mirror: Mirror, error: Exception) -> None:
        """Say that it cannot be kept up: once, until it was."""
        if not self._failing:
            self._failing = True
            traceback.print_exception(error)
            said = str(error).strip().splitlines()
            why = said[0] if said else type(error).__name__
            self._tell(f"{mirror.address} is not up to date: {why}; the job's folder on disk has everything")
