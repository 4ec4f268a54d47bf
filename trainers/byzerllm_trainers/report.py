"""How a run goes, said every so many steps: a line in rank 0's log, and numbers for a tracker."""

from __future__ import annotations

from . import preferences
from .job_folder import JobFolder, Record
from .loop_settings import LoopSettings
from .trackers import Tracker, tracker

SERIES = (
    *("learning_rate", "grad_norm", "tokens_per_second", "memory", "mfu", "eval_loss", "eval_accuracy"),
    *preferences.METRICS,
)
"""What is told besides the loss, under the names of metrics.jsonl."""


class Report:
    """Takes every step's record and says every ``logging_steps``-th, the last, and those with an evaluation.

    The loss that it says is the mean since it last said one. Leaving its ``with`` closes the tracker.
    """

    def __init__(self, settings: LoopSettings, folder: JobFolder, total_steps: int) -> None:
        self._settings, self._folder, self._total = settings, folder, total_steps
        self._losses: list[float] = []
        self._tracker: Tracker | None = None

    def add(self, record: Record) -> None:
        """Take one step's record."""
        step = record["step"]
        self._losses.append(record["loss"])
        if step % self._settings.logging_steps and step != self._total and "eval_loss" not in record:
            return
        said = {"loss": sum(self._losses) / len(self._losses)}
        said |= {name: record[name] for name in SERIES if name in record}
        self._losses.clear()
        print(f"step {step}/{self._total}: " + ", ".join(f"{name} {value:.4g}" for name, value in said.items()))
        self._track(said, step)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tracker is not None:
            self._tracker.close()

    def _track(self, said: dict[str, float], step: int) -> None:
        if self._tracker is None:
            self._tracker = tracker(self._settings.report_to, self._folder)
        if self._tracker is not None:
            self._tracker.log(said, step)
