"""What the views of a training job show: plain data that whoever watches the job fills in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

ACTIVE: Final = frozenset({"preparing", "starting", "running", "restarting", "stopping"})
"""States in which workers hold resources or will soon, and in which stopping makes sense."""

ENDED: Final = frozenset({"finished", "failed", "stopped"})
"""States that nothing follows but `resume`."""

SERIES: Final = ("loss", "learning_rate", "grad_norm", "tokens_per_second")
"""What is plotted against `step`, in the order of the chart's tabs."""


@dataclass
class JobState:
    """A training job at one moment.

    Attributes:
        name: The job's name, unique among its owner's jobs.
        folder: The job folder, a path or an `s3://` address.
        method: The way to train, e.g. "sft".
        state: One of `ACTIVE` or `ENDED`.
        message: One line for humans: what the job waits for, an error's first line.
        workers: Number of workers of the gang.
        attempt: 1 for the first gang, one more for each restart.
        step: Last finished optimizer step.
        total_steps: Planned steps; None while unknown.
        started: When the job started, unix seconds.
        finished: When it ended, unix seconds; None while it is active.
        series: "step" (int64) and each of `SERIES` (float64), all of one length, steps ascending.
        checkpoints: Steps of the committed checkpoints.
        samples: The newest answers to the user's ``sample_prompts``: "step", "prompt" and "answer" of each.

    """

    name: str
    folder: str
    method: str
    state: str = "preparing"
    message: str = ""
    workers: int = 0
    attempt: int = 1
    step: int = 0
    total_steps: int | None = None
    started: float | None = None
    finished: float | None = None
    series: dict[str, np.ndarray] = field(default_factory=dict)
    checkpoints: list[int] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """Whether the job still runs or is about to."""
        return self.state in ACTIVE

    def elapsed(self, now: float) -> float | None:
        """Return the seconds from start to end, or to `now` (unix seconds); None before the start."""
        if self.started is None:
            return None
        return max(0.0, (now if self.finished is None else self.finished) - self.started)

    def points(self) -> int:
        """Return how many steps have metrics."""
        return len(self.series["step"]) if "step" in self.series else 0

    def last(self, name: str) -> float | None:
        """Return the newest value of a series (it may be NaN); None when it has none."""
        values = self.series.get(name)
        return None if values is None or not len(values) else float(values[-1])
