"""Static twins: what a saved notebook, a diff, GitHub and a screen reader show in place of a live view."""

from __future__ import annotations

import base64
import html
import io
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from byzerllm_magics.widgets.loss_chart import SMOOTHED, chart_columns
from byzerllm_magics.widgets.series import downsample

if TYPE_CHECKING:
    from byzerllm_magics.widgets.job_state import JobState

Bundle = tuple[dict[str, Any], dict[str, Any]]
"""A MIME bundle and its metadata."""

WIDTH, HEIGHT, DENSITY = 640, 240, 2
"""Size of the chart in CSS pixels, and image pixels for each of them."""

# Middle tones: each has a contrast of at least 3:1 on white and on #111, so the picture needs no background.
_LINE, _MARK, _TEXT = "#3583e0", "#e0662f", "#808080"
_BARS: Final = "▁▂▃▄▅▆▇█"


def chart_png(state: JobState) -> bytes:
    """Return the loss chart as a transparent PNG of at most about 20 kB, sharp at `WIDTH` x `HEIGHT`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    dpi = 100
    figure = Figure(figsize=(WIDTH / dpi, HEIGHT / dpi), dpi=dpi * DENSITY, layout="constrained")
    figure.patch.set_alpha(0)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="none")
    columns = chart_columns(state)
    axes.plot(*downsample(columns["step"], columns["loss"], points=800), color=_LINE, alpha=0.45, linewidth=0.9)
    axes.plot(*downsample(columns["step"], columns[SMOOTHED], points=400), color=_LINE, linewidth=1.8)
    axes.vlines(state.checkpoints, 0, 0.04, transform=axes.get_xaxis_transform(), color=_MARK, linewidth=1.2)
    # Not the job's name: it may be Chinese, for which matplotlib's own font has no glyphs.
    axes.set_title(f"loss · {steps_done(state)} · {state.state}", color=_TEXT, fontsize=9, loc="left")
    axes.set_xlabel("step", color=_TEXT, fontsize=8)
    axes.tick_params(colors=_TEXT, labelsize=8, length=3)
    axes.grid(visible=True, color=_TEXT, alpha=0.25, linewidth=0.5)
    axes.set_xlim(0, max(1, (state.total_steps if state.active else None) or state.step))
    axes.locator_params("x", integer=True)
    axes.spines[:].set_visible(False)
    canvas.draw()
    # A palette of 16 colours halves the file and cannot be seen in a line chart.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).quantize(16, method=Image.Quantize.FASTOCTREE)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True, dpi=(dpi * DENSITY, dpi * DENSITY))
    return file.getvalue()


def job_summary(state: JobState) -> str:
    """Return a job in a few lines of plain text: state, steps, loss with a sparkline, speed, time, folder."""
    lines = [f"{state.name} ({state.method}): {state.state}" + (f" — {state.message}" if state.message else "")]
    workers = f"{state.workers} worker{'s' * (state.workers != 1)}"
    lines.append(f"progress   {steps_done(state)}, {workers}, attempt {state.attempt}")
    loss = state.series.get("loss")
    if loss is not None and len(loss):
        lines.append(f"loss       {loss[0]:.4g} {sparkline(loss)} {loss[-1]:.4g}")
    speed = state.last("tokens_per_second")
    if speed is not None:
        lines.append(f"speed      {speed:,.0f} tokens/s")
    for sample in state.samples:
        lines.append(f"sample     {_short(sample['prompt'])} → {_short(sample['answer'])} (step {sample['step']:,})")
    elapsed = state.elapsed(time.time())
    if elapsed is not None:
        lines.append(f"time       {elapsed:,.0f} s")
    finished = state.state == "finished"
    lines.append(f"model      {state.folder}/model" if finished else f"job        {state.folder}")
    return "\n".join(lines)


def _short(text: str, width: int = 60) -> str:
    """Return a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def steps_done(state: JobState) -> str:
    """Return e.g. "step 400 of 1,000"."""
    return f"step {state.step:,}" + ("" if state.total_steps is None else f" of {state.total_steps:,}")


def sparkline(values: np.ndarray, width: int = 24) -> str:
    """Return (n,) values as at most `width` bars, each the mean of its share, blank where none is finite."""
    means = []
    for part in np.array_split(values, min(width, len(values))):
        finite = part[np.isfinite(part)]
        means.append(finite.mean() if len(finite) else np.nan)
    heights = np.array(means)
    if np.isnan(heights).all():
        return " " * len(heights)
    low, high = np.nanmin(heights), np.nanmax(heights)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if np.isnan(height) else _BARS[round((height - low) * scale)] for height in heights)


def job_bundle(state: JobState) -> Bundle:
    """Return the job as `text/html` (summary and chart), `image/png` (once it has metrics) and `text/plain`.

    The HTML uses nothing that an untrusted notebook loses.
    """
    summary = job_summary(state)
    markup = f'<pre style="margin: 0">{html.escape(summary)}</pre>'
    if not state.points():
        return {"text/html": markup, "text/plain": summary}, {}
    chart = chart_png(state)
    source = base64.b64encode(chart).decode()
    markup += f'<img width="{WIDTH}" height="{HEIGHT}" alt="Loss chart" src="data:image/png;base64,{source}">'
    data = {"text/html": markup, "image/png": chart, "text/plain": summary}
    return data, {"image/png": {"width": WIDTH, "height": HEIGHT}}
