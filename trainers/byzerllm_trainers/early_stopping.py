"""Ending a run whose evaluations do not get better any more."""

from __future__ import annotations

from collections.abc import Iterable

from .evaluation import HIGHER_IS_BETTER
from .job_folder import Record


class EarlyStopping:
    """Counts evaluations without a better one.

    Args:
        metric: One of `HIGHER_IS_BETTER`.
        patience: How many of them in a row end the run; None: any number may.
        earlier: The records of the steps before, when a run goes on: they count.
    """

    def __init__(self, metric: str, patience: int | None, earlier: Iterable[Record] = ()) -> None:
        self._metric, self._patience = metric, patience
        self._best: float | None = None
        self._worse = 0
        for record in earlier:
            self.is_due(record)

    @property
    def message(self) -> str:
        """Why the run ends."""
        return f"{self._metric} did not get better in {self._worse} evaluations"

    def is_due(self, metrics: Record) -> bool:
        """Take what a step measured; return whether the run is to end with it. A step without an evaluation says no."""
        if self._patience is None or self._metric not in metrics:
            return False
        score = metrics[self._metric] * (1 if HIGHER_IS_BETTER[self._metric] else -1)
        if self._best is None or score > self._best:
            self._best, self._worse = score, 0
        else:
            self._worse += 1
        return self._worse >= self._patience
