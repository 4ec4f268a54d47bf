"""The live job card: what a training job is, where it stands, when it ends, and a button that stops it."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import traitlets

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.widgets.job_state import SERIES
from byzerllm_magics.widgets.loss_chart import finite_or_none
from byzerllm_magics.widgets.view import STATIC, LiveView

if TYPE_CHECKING:
    from collections.abc import Callable

    from byzerllm_magics.widgets.job_state import JobState

RESEND_SECONDS: Final = 10.0
"""The page's own clock ticks between updates; a reloaded page is at most this far behind."""

STEADY_SECONDS: Final = 3.0
"""The first steps after the start are slow, and a figure that halves every second tells nothing."""


class JobCard(LiveView):
    """A card that follows its job.

    Traits:
        card: What is shown: name, method, state, active, message, workers, attempt, step, total_steps,
            elapsed and remaining (seconds or None), folder, samples, and the newest value of each series.
        notice: One line about a request to stop that could not be carried out.
    """

    _esm = STATIC / "job_card.js"
    _css = STATIC / "job_card.css"

    card = traitlets.Dict().tag(sync=True)
    notice = traitlets.Unicode("").tag(sync=True)

    def __init__(self, clock: Callable[[], float] = time.time, **traits: Any) -> None:
        self._lock = threading.RLock()
        self._clock, self._pace, self._sent = clock, Pace(), float("-inf")
        self._stop: Callable[[], None] | None = None
        super().__init__(**traits)
        self.on_msg(self._received)

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the user confirms the stop; its `ByzerError` becomes the card's notice.

        Without a callback the card has no button.
        """
        self._stop = callback

    def update(self, state: JobState) -> None:
        """Show the job's newest state; safe to call from any thread."""
        now = self._clock()
        with self._lock:
            self._pace.add(now, state.step)
            card = {
                **{name: getattr(state, name) for name in ("name", "method", "state", "active", "message")},
                **{name: getattr(state, name) for name in ("workers", "attempt", "step", "total_steps", "folder")},
                "samples": state.samples,
                **{name: finite_or_none(state.last(name)) for name in SERIES},
                "stoppable": state.active and state.state != "stopping" and self._stop is not None,
            }
            told = {name: self.card.get(name) for name in card}
            if card != told or (state.active and now - self._sent >= RESEND_SECONDS):
                self._sent = now
                self.card = card | {"elapsed": state.elapsed(now), "remaining": self._remaining(state)}

    def _remaining(self, state: JobState) -> float | None:
        """Return the seconds to the last step at the present pace; None while there is no telling."""
        if state.state != "running" or state.total_steps is None:
            return None
        pace = self._pace.seconds_a_step()  # the time since the start would count the loading of the model as steps
        return None if pace is None else pace * max(0, state.total_steps - state.step)

    def _received(self, _widget: object, content: object, _buffers: object) -> None:
        if content != {"type": "stop"} or self._stop is None:
            return
        try:
            self._stop()
        except ByzerError as error:  # a view has no cell whose error it could become
            self.notice = error.render()[0]


class Pace:
    """How fast steps follow each other now, over about the last hundred sightings."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=100)

    def add(self, now: float, step: int) -> None:
        """Note that `step` was the newest at `now` (seconds). Before the first step there is no pace."""
        if step < 1:
            return
        if self._seen and step < self._seen[-1][1]:  # a restart went back to a checkpoint
            self._seen.clear()
        if not self._seen or step > self._seen[-1][1]:
            self._seen.append((now, step))

    def seconds_a_step(self) -> float | None:
        """Return the mean time of a step in seconds; None before it was watched for `STEADY_SECONDS`."""
        if not self._seen or self._seen[-1][0] - self._seen[0][0] < STEADY_SECONDS:
            return None
        (first_time, first_step), (last_time, last_step) = self._seen[0], self._seen[-1]
        return (last_time - first_time) / (last_step - first_step)
