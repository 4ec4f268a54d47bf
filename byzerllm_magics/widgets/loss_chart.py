"""The live loss chart: a job's series against its steps, downsampled here, drawn by uPlot in the page."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import traitlets

from byzerllm_magics.widgets.job_state import SERIES
from byzerllm_magics.widgets.series import extremes, pack, smooth
from byzerllm_magics.widgets.view import STATIC, LiveView

if TYPE_CHECKING:
    from byzerllm_magics.widgets.job_state import JobState

POINTS: Final = 2400
"""Most points a message carries, shared by all series: 6 columns of float32, 58 kB."""

SMOOTHED: Final = "loss_smoothed"


class LossChart(LiveView):
    """A chart that grows with its job; `update` it as often as you like, it sends only what changed.

    Traits:
        data: float32, little-endian: "step", then each name of `meta["names"]`, `meta["points"]` values each.
        meta: names, points, raw (points the job has), last_step, title, total_steps, state, active, last (newest
            value of each series or None), checkpoints, range (what `data` covers, [] for everything).
        range: Set by the page on zoom, [first step, last step] or []; answered at full resolution.
    """

    _esm = STATIC / "loss_chart.js"
    _css = STATIC / "loss_chart.css"

    data = traitlets.Bytes(b"").tag(sync=True)
    meta = traitlets.Dict().tag(sync=True)
    range = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        self._lock = threading.RLock()  # `update` and a zoom arrive on different threads
        self._state: JobState | None = None
        self._shown: tuple[object, ...] = ()
        super().__init__(**traits)

    def update(self, state: JobState) -> None:
        """Show the job's newest state; safe to call from any thread."""
        with self._lock:
            self._state = state
            self._refresh(state)

    @traitlets.observe("range")  # type: ignore[untyped-decorator]
    def _zoomed(self, _change: object) -> None:
        with self._lock:
            if self._state is not None:
                self._refresh(self._state)

    def _refresh(self, state: JobState) -> None:
        shown = (
            state.name,
            state.state,
            state.attempt,
            state.points(),
            state.step,
            state.total_steps,
            tuple(state.checkpoints),
            tuple(self.range),
        )
        if shown == self._shown:
            return
        self._shown = shown
        columns = window(chart_columns(state), self.range)
        meta = {
            "names": [name for name in columns if name != "step"],
            "points": len(columns["step"]),
            "raw": state.points(),
            "last_step": state.step,
            "title": state.name,
            "total_steps": state.total_steps,
            "state": state.state,
            "active": state.active,
            "last": {name: finite_or_none(state.last(name)) for name in SERIES},
            "checkpoints": state.checkpoints,
            "range": self.range,
        }
        with self.hold_sync():  # one message: a page never sees data and meta that disagree
            self.data = pack(list(columns.values()))
            self.meta = meta


def chart_columns(state: JobState) -> dict[str, np.ndarray]:
    """Return the job's "step", its series and the smoothed loss, all (n,) float64, at full resolution."""
    columns = {name: np.asarray(state.series.get(name, ()), dtype=np.float64) for name in ("step", *SERIES)}
    n = len(columns["step"])
    columns = {name: column if len(column) else np.full(n, np.nan) for name, column in columns.items()}
    columns[SMOOTHED] = smooth(columns["loss"], span=smoothing_span(state.total_steps or n))
    return columns


def smoothing_span(steps: int) -> float:
    """Return over how many steps the loss is averaged: from the plan, so that the line keeps its shape."""
    return min(max(steps / 40, 8.0), 2000.0)


def window(columns: dict[str, np.ndarray], limits: list[float], points: int = POINTS) -> dict[str, np.ndarray]:
    """Return the rows between two steps ([] for all), at most `points`, each column's extremes kept."""
    if limits:
        first, last = np.searchsorted(columns["step"], limits)
        rows = slice(max(0, first - 1), last + 1)  # a row more on both sides: lines run to the chart's edge
        columns = {name: column[rows] for name, column in columns.items()}
    if len(columns["step"]) <= points:
        return columns
    share = points // len(SERIES)
    keep = np.unique(np.concatenate([extremes(columns[name], share) for name in SERIES]))
    return {name: column[keep] for name, column in columns.items()}


def finite_or_none(value: float | None) -> float | None:
    """Return the value, or None for what JSON cannot say."""
    return value if value is not None and math.isfinite(value) else None
