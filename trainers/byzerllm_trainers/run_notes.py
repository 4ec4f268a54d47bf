"""What the user of a run should know of it: what does not fit together, and that nothing is learned any more."""

from __future__ import annotations

from collections.abc import Iterator

from .job_folder import Record
from .loop_settings import LoopSettings

STANDSTILL_STEPS = 10
"""So many steps in a row whose gradient is zero, to six digits, are no chance."""


def notes_before(settings: LoopSettings, *, total: int, epoch: int, of_data: int) -> Iterator[str]:
    """Yield what does not fit together.

    Args:
        settings: The run's.
        total: Its steps.
        epoch: Steps that count as an epoch.
        of_data: Steps in which all of the data is seen once.
    """
    if (settings.warmup_steps or 0) >= total:
        yield (
            f"the warm-up takes {settings.warmup_steps} steps, and the run has {total}: "
            "the learning rate does not reach its peak"
        )
    if epoch > of_data:
        yield f"steps_per_epoch={epoch}, and all of the data is {of_data}: an epoch sees it more than once"


class Standstill:
    """Notices that nothing is learned any more: the gradient is zero, step after step."""

    def __init__(self) -> None:
        self._steps = 0

    def add(self, record: Record) -> str | None:
        """Take a step's record; return what to tell, once for each time that it comes to a stand."""
        self._steps = self._steps + 1 if record["grad_norm"] == 0 else 0
        if self._steps != STANDSTILL_STEPS:
            return None
        since = record["step"] - STANDSTILL_STEPS + 1
        return f"the gradient is zero since step {since}, so that nothing is learned: a lower learning_rate may help"
