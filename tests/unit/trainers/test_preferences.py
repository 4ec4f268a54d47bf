"""The loss of preferences, its gradients and its metrics: TRL's on the same rows, however they are dealt."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from byzerllm_adapters.conversations import Encoded
from byzerllm_trainers.packing import IGNORED, Batch, Layout
from byzerllm_trainers.pairs import PairedRows
from byzerllm_trainers.preferences import METRICS, Preferences, reference
from tests.unit.trainers.helpers import load, shards_of

BETA = 0.3
LOSSES = ("sigmoid", "hinge", "ipo")


def preferences(count: int = 6) -> list[dict[str, list[int]]]:
    """Random prompts and pairs of answers, as token ids, under TRL's names."""
    random = np.random.default_rng(0)
    lengths = {"prompt_ids": (3, 12), "chosen_ids": (2, 20), "rejected_ids": (2, 20)}
    return [
        {name: random.integers(3, 384, int(random.integers(*span))).tolist() for name, span in lengths.items()}
        for _ in range(count)
    ]


def examples_of(rows: list[dict[str, list[int]]]) -> list[Encoded]:
    """The same as consecutive examples."""
    return [
        Encoded([*row["prompt_ids"], *row[side]], [False] * len(row["prompt_ids"]) + [True] * len(row[side]))
        for row in rows
        for side in ("chosen_ids", "rejected_ids")
    ]


ROWS = preferences()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def ours(model_dir: Path, folder: Path, loss_type: Any, layout: Layout) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Loss and metrics of a step over all its ranks and micro-batches, and its gradients."""
    model = load(model_dir, lora=True)
    model.train()
    plan = PairedRows(shards_of(folder, examples_of(ROWS)), layout)
    total = torch.zeros(1 + len(METRICS))
    for rank in range(layout.world):
        step = plan.step(0, rank)
        for batch in step.batches:
            sums = Preferences(BETA, loss_type).summed_loss(model, batch) / step.targets
            sums[0].backward()
            total += sums.detach()
    return total.tolist(), gradients(model)


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    assert found.keys() == expected.keys()
    assert all("lora_" in name for name in found)
    return max(float((found[name] - one).norm() / one.norm()) for name, one in expected.items()) < 1e-4


@pytest.mark.parametrize("loss_type", LOSSES)
def test_loss_gradients_and_metrics_equal_trls(tiny_model: Path, tmp_path: Path, loss_type: str) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from byzerllm_adapters.registry import find

    said = [{"role": "assistant", "content": word} for word in ("Red.", "Blue.")]
    row = {"prompt": [{"role": "user", "content": "Which?"}], "chosen": said[:1], "rejected": said[1:]}
    trainer = DPOTrainer(
        model=load(tiny_model, lora=True),
        args=DPOConfig(
            output_dir=str(tmp_path), beta=BETA, loss_type=loss_type, use_cpu=True, bf16=False, report_to="none",
            gradient_checkpointing=False, disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([row]),
        processing_class=find("llama").load_tokenizer(str(tiny_model)),
    )  # fmt: skip
    trainer.model.delete_adapter("ref")  # TRL's reference of an adapter that is handed in is its copy; ours is the base
    trainer.model.train()
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(ROWS))
    theirs.backward()

    (loss, *measured), found = ours(tiny_model, tmp_path, loss_type, Layout(6, 1, 1, 0))
    assert loss == pytest.approx(theirs.item(), rel=1e-4)
    assert same(found, gradients(trainer.model))
    logged = [trainer._metrics["train"][name][0] for name in METRICS]
    assert measured == pytest.approx(logged, rel=1e-3, abs=1e-5)
    assert len(set(logged)) == 4, "nothing is zero or the same by chance"


def paper_loss(model: Any) -> torch.Tensor:
    """Equation 7 of Rafailov et al. (2023), one answer at a time, the reference a model of its own."""

    def log_probability(row: dict[str, list[int]], side: str) -> torch.Tensor:
        ids = torch.tensor([row["prompt_ids"] + row[side]])
        steps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        return steps.gather(-1, ids[0, 1:, None])[len(row["prompt_ids"]) - 1 :].sum()

    losses = []
    for row in ROWS:
        with torch.no_grad(), model.disable_adapter():
            before = {side: log_probability(row, side) for side in ("chosen_ids", "rejected_ids")}
        won, lost = (log_probability(row, side) - before[side] for side in ("chosen_ids", "rejected_ids"))
        losses.append(-logsigmoid(BETA * won - BETA * lost))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    "layout",
    [Layout(6, 1, 1, 0), Layout(2, 3, 1, 0), Layout(3, 1, 2, 0), Layout(2, 2, 2, 0), Layout(4, 1, 2, 0)],
    ids=lambda layout: f"{layout.rows}x{layout.accumulation}x{layout.world}",
)
def test_gradients_equal_the_papers_however_the_pairs_are_dealt(
    tiny_model: Path, tmp_path: Path, layout: Layout
) -> None:
    """To micro-batches and ranks, some of which have fewer pairs, or none."""
    model = load(tiny_model, lora=True)
    expected = paper_loss(model)
    expected.backward()
    (loss, *_), found = ours(tiny_model, tmp_path, "sigmoid", layout)
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    assert same(found, gradients(model))


def test_a_new_adapter_changes_nothing_yet(tiny_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load(tiny_model), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    [batch] = PairedRows(shards_of(tmp_path, examples_of(ROWS)), Layout(6, 1, 1, 0)).step(0, 0).batches
    loss, *measured = (Preferences(BETA, "sigmoid").summed_loss(model, batch) / 6).tolist()
    assert (loss, *measured) == pytest.approx((math.log(2), 0, 0, 0, 0), abs=1e-6)


def test_the_reference_is_the_base_without_dropout_and_leaves_the_model_as_it_was(tiny_model: Path) -> None:
    base, model = load(tiny_model), load(tiny_model, lora=True, dropout=0.5)
    model.train()
    ids = torch.arange(3, 20)[None]
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    with reference(model):
        logits = model(input_ids=ids).logits
    assert torch.equal(logits, base(input_ids=ids).logits)
    assert not logits.requires_grad
    assert all(module.training for module in model.modules())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained


def test_a_rank_without_pairs_has_no_loss_and_zero_gradients(tiny_model: Path) -> None:
    model = load(tiny_model, lora=True)
    for rows in (1, 2):
        idle = Batch(np.full((rows, 3), 5), np.full((rows, 3), IGNORED))
        sums = Preferences(BETA, "ipo").summed_loss(model, idle)
        sums[0].backward()
        assert sums.tolist() == [0] * 5
        assert Preferences(BETA, "ipo").scores(model, idle) == (0.0, 0, 0)
    assert not any(gradient.any() for gradient in gradients(model).values())
