"""What does not fit together is told before the first step, and a model that stands still when it does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from byzerllm_adapters.parameters import read
from byzerllm_trainers.loop_settings import LoopSettings, loop_settings
from byzerllm_trainers.run_notes import STANDSTILL_STEPS, Standstill, notes_before
from byzerllm_trainers.train_parameters import TrainParameters


@pytest.fixture
def settings() -> LoopSettings:
    return loop_settings(read(TrainParameters, {"pretrainedModelType": "sfft/llama", "localModelDir": "m"}))


@pytest.mark.parametrize(
    ("warmup", "total", "epoch", "words"),
    [
        (5, 10, 10, None),
        (None, 10, 10, None),
        (10, 10, 10, "does not reach its peak"),
        (0, 20, 20, "steps_per_epoch=20, and all of the data is 10: an epoch sees it more than once"),
        (0, 5, 5, None),
    ],
)
def test_what_does_not_fit_together_is_told(
    settings: LoopSettings, warmup: int | None, total: int, epoch: int, words: str | None
) -> None:
    notes = list(notes_before(replace(settings, warmup_steps=warmup), total=total, epoch=epoch, of_data=10))
    assert len(notes) == (words is not None)
    assert not notes or str(words) in notes[0]


def told(norms: list[float]) -> list[str]:
    still = Standstill()
    records: list[dict[str, Any]] = [{"step": step, "grad_norm": norm} for step, norm in enumerate(norms, 1)]
    return [note for record in records if (note := still.add(record))]


def test_a_gradient_that_stays_zero_is_told_once_with_its_first_step() -> None:
    [note] = told([1.0, 0.5, *[0.0] * (2 * STANDSTILL_STEPS)])
    assert note.startswith("the gradient is zero since step 3, so that nothing is learned")


def test_a_few_steps_without_a_gradient_are_not_told() -> None:
    assert not told([*[0.0] * (STANDSTILL_STEPS - 1), 1.0] * 3)
