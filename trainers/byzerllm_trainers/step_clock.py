"""Where a step's time goes: data, forward, backward, optimizer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PARTS = ("data", "forward", "backward", "optimizer")


class StepClock:
    """Adds up the seconds of each part of a step.

    On a GPU, which works behind Python's back, the marks are CUDA events: nothing waits for them but `read`, which
    comes when the step's loss is there anyway.

    Args:
        device: Where the step is computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, torch.cuda.Event | float]] = []

    def start(self) -> None:
        """A step begins."""
        self._marks = [("", self._now())]

    def mark(self, part: str) -> None:
        """What was done since the last mark belongs to this part."""
        self._marks.append((part, self._now()))

    def read(self) -> dict[str, float]:
        """Return the seconds of each of `PARTS`, under ``PART_seconds``."""
        seconds = dict.fromkeys(PARTS, 0.0)
        for (_, before), (part, after) in zip(self._marks, self._marks[1:], strict=False):
            seconds[part] += self._between(before, after)
        return {f"{part}_seconds": round(value, 5) for part, value in seconds.items()}

    def _now(self) -> torch.cuda.Event | float:
        if not self._on_gpu:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, before: torch.cuda.Event | float, after: torch.cuda.Event | float) -> float:
        if isinstance(before, float) or isinstance(after, float):
            assert isinstance(before, float) and isinstance(after, float), "marks are of one kind"  # noqa: PT018
            return after - before
        after.synchronize()
        return float(before.elapsed_time(after)) / 1000
