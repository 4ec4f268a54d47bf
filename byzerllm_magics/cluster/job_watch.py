"""What a view of a training job shows, kept in step with the job's folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from byzerllm_trainers import follow
from byzerllm_trainers.curve import Curve
from byzerllm_trainers.job_folder import FINAL_STATES, SAMPLES_FILE, JobFolder, Record

from ..paths import shown
from ..widgets.job_state import SERIES, JobState

LIVENESS_SECONDS = 5.0
"""How often a silent job's coordinator is looked for."""


BEHIND = "it goes on elsewhere: this is what its copy had when it was fetched"

STATES = {"loss": "restarting"}
"""Events that say something about a state, but do not have its name."""


class JobWatch:
    """Keeps a `JobState` in step with a job's folder; each look reads only what is new.

    Args:
        folder: The job's folder.
        is_alive: Whether a job's coordinator lives; asked now and then while the folder is silent.

    Attributes:
        state: What a view shows.
        curve: The steps so far.
        model_step: The step whose weights the job ended with; None: it has not ended.
    """

    def __init__(self, folder: JobFolder, is_alive: Callable[[JobFolder], bool] | None = None) -> None:
        request = folder.request()
        method = str(request["parameters"]["pretrainedModelType"]).partition("/")[0]
        self._folder, self._is_alive = folder, is_alive
        self.curve = Curve(folder.root / "metrics.jsonl")
        self._events = follow.Cursor(folder.root / "events.jsonl")
        self._samples = follow.Cursor(folder.root / SAMPLES_FILE)
        self.model_step: int | None = None
        self._board, self._notes = "", list[str]()
        self._heard = time.monotonic()
        self.state = JobState(folder.name, shown(folder.root), method, workers=int(request["workers"]))

    def hear(self) -> JobState:
        """Read what has happened, but not the steps, and return the state as far as that says it."""
        for event in self._events.advance():
            self._apply(event)
            self._heard = time.monotonic()
        return self.state

    def look(self) -> JobState:
        """Read what is new and return the state."""
        stepped = self.curve.advance()
        self.hear()
        if stepped:
            self._heard = time.monotonic()
            columns = self.curve.columns
            self.state.step = int(columns["step"][-1])
            self.state.series = {name: columns[name] for name in ("step", *SERIES)}
        if samples := self._samples.advance():
            newest = samples[-1]["attempt"], samples[-1]["step"]
            self.state.samples = [each for each in samples if (each["attempt"], each["step"]) == newest]
        if self.state.active and self._folder.is_fetched:
            self.state.message = BEHIND
        if self.state.active and self._is_alive and time.monotonic() - self._heard > LIVENESS_SECONDS:
            self._heard = time.monotonic()
            if not self._is_alive(self._folder) and self._folder.ending() is None:
                self.state.state = "failed"
                self.state.message = f"its coordinator is gone: %byzerllm resume {self._folder.name} goes on"
        return self.state

    def _apply(self, event: Record) -> None:
        state, name = self.state, event["event"]
        state.attempt = int(event["attempt"])
        state.started = state.started or event["time"]
        if name == "checkpoint":
            state.checkpoints = sorted({*state.checkpoints, int(event["step"])})
            return
        if name == "note":
            self._notes.append(event["message"])
            state.message = _joined(state.message, event["message"])
            return
        if name == "prepared":
            said = [_said(k, v) for k, v in event.items() if k not in ("event", "time", "attempt", "reused") and v]
            said += [f"tokenised before by {event['reused']}"] if "reused" in event else []
            state.message = ", ".join(said)
            return
        state.state, state.finished, self.model_step = STATES.get(str(name), str(name)), None, None
        state.total_steps = event.get("total_steps", state.total_steps)
        self._board = event.get("tensorboard", self._board)
        state.message = event.get(
            "message", self._board and f"TensorBoard: {self._board}" if name == "running" else state.message
        )
        if name == "restarting" and "lost" not in event:  # resumed, perhaps to another end
            state.total_steps = None
        if name in FINAL_STATES:
            state.finished = event["time"]
            self.model_step = event.get("model_step")
            state.message = event["error"][0] if name == "failed" else event.get("message", "")
            if self.model_step not in (None, event.get("steps")):
                state.message = _joined(state.message, f"the model is that of step {self.model_step}, the best")
            if self._board:  # its server has ended with the job
                board = f"TensorBoard: tensorboard --logdir {shown(self._folder.tensorboard)}"
                state.message = _joined(state.message, board)
        state.message = _joined(state.message, *self._notes)


def _joined(*sentences: str) -> str:
    return "; ".join(dict.fromkeys(filter(None, sentences)))


def _said(key: str, value: Any) -> str:
    """Return an entry of the ``prepared`` event as a person reads it: how many, or which."""
    name = key.replace("_", " ")
    return f"{name} {value}" if isinstance(value, str) else f"{value:,} {name}"
