"""A checkpoint read in the universal format, as another number of ranks reads it: nothing of it is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from byzerllm_trainers import restoring
from byzerllm_trainers.job_folder import JobFolder
from tests.unit.trainers.helpers import examples, load, run, settings

pytestmark = [pytest.mark.usefixtures("group"), pytest.mark.slow]

ROWS = examples([40, 7, 23, 12, 3, 31, 18, 9, 26, 14])


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_weights_and_optimizer_go_on_as_from_the_checkpoint_itself(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: int, bf16: bool, lora: bool
) -> None:
    keys = {"per_device_train_batch_size": 2, "learning_rate": 1e-2, "bf16": bf16}
    chosen = settings(deepspeed={"zero_optimization": {"stage": stage}}, **keys)

    def trained(name: str, stop_at: int = 0) -> list[float]:
        folder = JobFolder(tmp_path / name)
        if not folder.exists():
            folder.create({})
        return run(
            load(tiny_model, lora=lora), ROWS, chosen, 9, folder, should_stop=lambda step: step == stop_at
        ).losses

    whole = trained("whole")
    first = trained("broken", stop_at=4)
    monkeypatch.setattr(restoring, "ranks_of", lambda _checkpoint: 2)
    assert first + trained("broken") == pytest.approx(whole, rel=1e-5 if not bf16 else 1e-3)
    assert not list((tmp_path / "broken" / "checkpoints").glob(".universal*"))
