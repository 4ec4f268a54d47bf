"""The loop over a real DeepSpeed engine, one process."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.job_folder import JobFolder
from tests.unit.trainers.helpers import examples, load, plain_loss, run, settings

pytestmark = pytest.mark.usefixtures("group")

ROWS = examples([40, 7, 23, 12, 3, 31, 18, 9])
STEPS = 20


def adamw(model: Any, learning_rates: list[float], clip: float) -> tuple[list[float], list[float]]:
    """The losses and gradient norms of a plain loop over all rows."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1}
    others = {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([group for group in (decayed, others) if group["params"]], betas=(0.9, 0.95))
    losses, norms = [], []
    for learning_rate in learning_rates:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        loss = plain_loss(model, ROWS)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, clip)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, norms


@pytest.mark.parametrize(
    ("lora", "accumulation", "stage"),
    [(False, 1, 2), (False, 4, 0), (True, 1, 0), (True, 4, 2)],
)
def test_losses_are_those_of_a_plain_adamw_loop(
    tiny_model: Path, folder: JobFolder, lora: bool, accumulation: int, stage: int
) -> None:
    chosen = settings(
        deepspeed={"zero_optimization": {"stage": stage}},
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        learning_rate=1e-2,
        warmup_steps=4,
        weight_decay=0.1,
        adam_beta2=0.95,
    )
    ran = run(load(tiny_model, lora=lora), ROWS, chosen, STEPS, folder)
    rates = [1e-2 * (step + 1) / 5 for step in range(4)]
    rates += [1e-2 * 0.5 * (1 + math.cos(math.pi * step / 16)) for step in range(16)]
    losses, norms = adamw(load(tiny_model, lora=lora), rates, clip=1.0)
    assert [record["learning_rate"] for record in ran.records] == pytest.approx(rates)
    assert ran.losses == pytest.approx(losses, rel=1e-3)
    assert [record["grad_norm"] for record in ran.records] == pytest.approx(norms, rel=1e-2)
    assert max(norms) > 1.0, "clipping was never needed, so this shows nothing about it"
    assert ran.losses[-1] < (0.99 if lora else 0.8) * ran.losses[0]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_losses_in_bf16_are_close_to_those_in_fp32_from_the_first_steps_on(
    tiny_model: Path, tmp_path: Path, stage: int
) -> None:
    def losses(name: str, bf16: bool) -> list[float]:
        folder = JobFolder(tmp_path / name)
        folder.create({})
        zero = {"zero_optimization": {"stage": stage}}
        chosen = settings(deepspeed=zero, bf16=bf16, per_device_train_batch_size=8, learning_rate=1e-2)
        return run(load(tiny_model), ROWS, chosen, 4, folder).losses

    assert losses("bf16", True) == pytest.approx(losses("fp32", False), rel=1e-3)


def test_frozen_weights_do_not_change(tiny_model: Path, folder: JobFolder) -> None:
    model = load(tiny_model, lora=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run(model, ROWS, settings(per_device_train_batch_size=8, learning_rate=1e-2), 2, folder)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (not parameter.requires_grad), name


def test_records_and_outcome_say_what_was_done(tiny_model: Path, folder: JobFolder) -> None:
    ran = run(load(tiny_model), ROWS, settings(per_device_train_batch_size=3), 6, folder)
    assert [record["step"] for record in ran.records] == [1, 2, 3, 4, 5, 6]
    tokens = [record["tokens"] for record in ran.records]
    assert sum(tokens[:3]) == sum(tokens[3:]) == sum(len(row.ids) for row in ROWS)  # two epochs
    for record in ran.records:
        assert record["tokens_per_second"] == pytest.approx(record["tokens"] / record["seconds"], rel=0.05)
    outcome = ran.outcome
    assert (outcome.state, outcome.steps, outcome.tokens) == ("finished", 6, sum(tokens))
    assert [outcome.first_loss, outcome.last_loss] == pytest.approx([ran.losses[0], ran.losses[-1]], abs=1e-6)
    assert ran.saved == [6]


def test_a_loss_that_is_not_a_number_stops_with_its_step(tiny_model: Path, folder: JobFolder) -> None:
    model = load(tiny_model)

    def poison(step: int) -> bool:
        if step == 3:
            with torch.no_grad():
                model.model.norm.weight.fill_(math.nan)
        return False

    with pytest.raises(ByzerError, match="the loss became nan at step 4") as caught:
        run(model, ROWS, settings(per_device_train_batch_size=8, save_steps=1), 9, folder, should_stop=poison)
    assert "learning rate" in caught.value.do
    assert not (folder.checkpoints / "step-4").exists()


def test_stopping_saves_a_checkpoint_and_says_so(tiny_model: Path, folder: JobFolder) -> None:
    ran = run(load(tiny_model), ROWS, settings(), 9, folder, should_stop=lambda step: step == 3)
    assert (ran.outcome.state, ran.outcome.steps, ran.saved) == ("stopped", 3, [3])
    assert (folder.checkpoints / "step-3" / "manifest.json").is_file()


def test_stopping_in_the_last_step_is_finishing(tiny_model: Path, folder: JobFolder) -> None:
    ran = run(load(tiny_model), ROWS, settings(), 3, folder, should_stop=lambda step: step == 3)
    assert (ran.outcome.state, ran.saved) == ("finished", [3])


def test_gradient_checkpointing_changes_no_loss(tiny_model: Path, folder: JobFolder, tmp_path: Path) -> None:
    other = JobFolder(tmp_path / "other")
    other.create({})
    keys = {"per_device_train_batch_size": 8, "learning_rate": 1e-2}
    plain = run(load(tiny_model, lora=True), ROWS, settings(**keys), 4, folder)
    saving = run(load(tiny_model, lora=True), ROWS, settings(gradient_checkpointing=True, **keys), 4, other)
    assert saving.losses == pytest.approx(plain.losses, rel=1e-5)


def test_a_step_says_what_it_did_and_where_its_time_went(tiny_model: Path, folder: JobFolder) -> None:
    rows = examples([9, 12, 30, 7])
    ran = run(load(tiny_model), rows, settings(per_device_train_batch_size=2, gradient_accumulation_steps=2), 3, folder)
    tokens = sum(len(row.ids) for row in rows)
    for number, record in enumerate(ran.records, 1):
        assert record["tokens"] == tokens
        assert record["tokens_seen"] == number * tokens
        assert record["tokens_per_second"] == record["tokens_per_second_per_device"]
        parts = [record[f"{part}_seconds"] for part in ("data", "forward", "backward", "optimizer")]
        assert all(part >= 0 for part in parts)
        assert 0 < sum(parts) <= record["seconds"] + 1e-4
        assert min(parts[1:3]) > 0
        assert record["memory"] > 2**20
        assert "mfu" not in record, "nobody knows what this CPU can do"


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_the_batch(tiny_model: Path, folder: JobFolder) -> None:
    import numpy as np
    import torch

    model = load(tiny_model)
    rows = examples([9, 12, 30, 7])
    with torch.no_grad():
        model.get_input_embeddings().weight[rows[2].ids[3]] = math.nan
    with pytest.raises(ByzerError, match="the loss became nan at step 1") as caught:
        run(model, rows, settings(per_device_train_batch_size=2, gradient_accumulation_steps=2), 3, folder)
    [kept] = folder.logs.glob("batches-step-1-rank-0.npz")
    assert str(kept) in caught.value.where
    with np.load(kept) as batches:
        assert sorted(batches) == ["input_ids_0", "input_ids_1", "labels_0", "labels_1"]
        lines = [ids.tolist() for name in ("input_ids_0", "input_ids_1") for ids in batches[name]]
    assert any(line[: len(rows[2].ids) - 1] == rows[2].ids[:-1] for line in lines)
    assert not list(folder.checkpoints.iterdir())


def test_what_was_seen_before_a_stop_counts(tiny_model: Path, folder: JobFolder) -> None:
    chosen = settings(per_device_train_batch_size=2)
    first = run(load(tiny_model), examples([9, 12, 30, 7]), chosen, 4, folder, should_stop=lambda step: step == 2)
    folder.append("metrics.jsonl", [{"attempt": 1, **record} for record in first.records])
    then = run(load(tiny_model), examples([9, 12, 30, 7]), chosen, 4, folder)
    assert then.records[-1]["tokens_seen"] == sum(r["tokens"] for r in [*first.records, *then.records])
