"""How a run goes, said every so many steps: a line in rank 0's log, and numbers for TensorBoard."""

from __future__ import annotations

from typing import Any

from .job_folder import JobFolder, Record
from .loop_settings import LoopSettings

SERIES = ("learning_rate", "grad_norm", "tokens_per_second", "eval_loss", "eval_accuracy")
"""What TensorBoard gets besides the loss, under the names of metrics.jsonl."""


class Report:
    """Takes every step's record and says every ``logging_steps``-th, the last, and those with an evaluation.

    The loss that it says is the mean since it last said one. Leaving its ``with`` closes TensorBoard's file.
    """

    def __init__(self, settings: LoopSettings, folder: JobFolder, total_steps: int) -> None:
        self._settings, self._folder, self._total = settings, folder, total_steps
        self._losses: list[float] = []
        self._writer: Any = None

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
        if self._settings.tensorboard:
            for name, value in said.items():
                self._tensorboard(step).add_scalar(name, value, step)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def _tensorboard(self, step: int) -> Any:
        """Return the writer; what an earlier attempt wrote from this step on is hidden."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder.tensorboard), purge_step=step)
        return self._writer
