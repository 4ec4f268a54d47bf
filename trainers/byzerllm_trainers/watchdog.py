"""Notices a worker that stands still: stopped, or hanging in a collective whose other end is gone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

START_SECONDS = 1800.0
"""Before it has done the first thing, a worker loads libraries and a model: at least this long it is left alone."""

ASK_SECONDS = 1.0
"""A worker is asked for its progress this long after it has answered."""


SILENT_SECONDS = 2.25
"""A worker that lives has answered within this time: asking and taking the answer wait for a look each."""


class Watchdog:
    """Asks each worker again and again for the number of things that it has done.

    One that does not answer, and one whose number stays the same, look alike: they make no progress.

    Args:
        workers: Actor handles, by rank, with a method ``progress`` (see `Worker.progress`).
        seconds: A worker may make none for this long, once it has done the first thing.
    """

    def __init__(self, workers: Sequence[Any], seconds: float) -> None:
        self._workers, self._seconds = workers, seconds
        now = time.monotonic()
        self._asked: list[Any | None] = [None] * len(workers)
        self._answered, self._moved = [now] * len(workers), [now] * len(workers)
        self._done = [-1] * len(workers)

    def look(self) -> str:
        """Take what was answered since, ask again, and return who stands still; empty: nobody does."""
        now = time.monotonic()
        for rank, worker in enumerate(self._workers):
            self._take(rank, now)
            if self._asked[rank] is None and now - self._answered[rank] >= ASK_SECONDS:
                self._asked[rank] = worker.progress.remote()
        standing = [rank for rank, moved in enumerate(self._moved) if now - moved > self._patience(rank)]
        if not standing:
            return ""
        # the others wait for who does not answer, or else for who is behind, and may have stood longer
        ranks = range(len(self._workers))
        rank = min(ranks, key=lambda one: (now - self._answered[one] < SILENT_SECONDS, self._done[one]))
        return f"worker {rank} made no progress for {self._patience(standing[0]):g} s"

    def _patience(self, rank: int) -> float:
        return self._seconds if self._done[rank] > 0 else max(self._seconds, START_SECONDS)

    def _take(self, rank: int, now: float) -> None:
        """Take a worker's answer if there is one; its death is told by what it was called for."""
        import ray

        asked = self._asked[rank]
        if asked is None or not ray.wait([asked], timeout=0)[0]:
            return
        self._asked[rank], self._answered[rank] = None, now
        try:
            done = ray.get(asked)
        except ray.exceptions.RayError:
            return
        if done < 0 or done != self._done[rank]:
            self._done[rank], self._moved[rank] = done, now
