"""What the cases of `sft.` and `sfft.` keys work with, and their register."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from byzerllm_trainers import recipe
from byzerllm_trainers.job_folder import JobFolder
from tests.tiny import instructions, preferences, texts
from tests.unit.trainers.helpers import Ran, examples, load, plain_loss, run, settings

ROWS = examples([40, 7, 23, 12, 3, 31, 18, 9])
OTHERS = examples([20, 11, 30, 8], seed=5)
ALL = {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 0, "lr_scheduler_type": "constant"}
"""All rows in a step, at one learning rate."""

Case = Callable[["Bench"], None]
CASES: dict[tuple[str, ...], Case] = {}
"""What shows the effect of some keys."""


def case(*names: str) -> Callable[[Case], Case]:
    def keep(check: Case) -> Case:
        CASES[names] = check
        return check

    return keep


@dataclass
class Bench:
    """What the cases work with: the tiny model, folders, jobs."""

    model_dir: Path
    root: Path
    make_job: Callable[..., recipe.Job]
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    numbers: Any = field(default_factory=itertools.count)

    def folder(self) -> JobFolder:
        folder = JobFolder(self.root / f"run-{next(self.numbers)}")
        folder.create({})
        return folder

    def run(self, steps: int = 3, *, folder: JobFolder | None = None, rows: Any = None, **keys: Any) -> Ran:
        model = load(self.model_dir, lora=keys.pop("lora", False), dropout=keys.pop("dropout", 0.0))
        more = {name: keys.pop(name) for name in ("should_stop", "held_out", "sampler") if name in keys}
        chosen = settings(**{**ALL, **keys})
        return run(model, rows or ROWS, chosen, steps, folder or self.folder(), **more)

    def plain(
        self, optimizer: Callable[..., Any], steps: int = 3, clip: float = 1.0, decay: float = 0.0
    ) -> list[float]:
        """The losses of a loop without an engine, with a torch optimizer."""
        model = load(self.model_dir)
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        made = optimizer(
            [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}], lr=1e-2
        )
        losses = []
        for _ in range(steps):
            loss = plain_loss(model, ROWS)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf)
            made.step()
            made.zero_grad()
            losses.append(loss.item())
        return losses

    def job(self, method: str = "sft", rows: int = 16, **keys: Any) -> recipe.Job:
        table = {"sft": instructions, "sfft": texts, "dpo": preferences}[method](rows)
        return self.make_job(method, pa.Table.from_pandas(table), **keys)

    def steps_of(self, method: str = "sft", **keys: Any) -> int:
        job, found = self.job(method, **keys), recipe.find(method)
        found.prepare(job)
        return recipe.total_steps(found, job, found.plan(job))
