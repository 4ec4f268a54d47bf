"""The whole loop against independent ones, on identical rows: plain PyTorch with transformers' loss, and TRL."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from byzerllm_adapters.conversations import Encoded
from byzerllm_trainers.job_folder import JobFolder
from tests.unit.trainers.helpers import Ran, examples, load, plain_loss, run, settings

pytestmark = [pytest.mark.usefixtures("group"), pytest.mark.slow]

ROWS = examples([40, 7, 23, 12, 3, 31, 18, 9])
SAME = {"max_grad_norm": 0, "lr_scheduler_type": "constant", "weight_decay": 0}
"""All rows make a step, so that their order is no difference."""

LAYOUTS = {
    "rows": {"keys": {"per_device_train_batch_size": 8}},
    "accumulated": {"keys": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3}},
    "packed": {"keys": {"per_device_train_batch_size": 8}, "packed": 48},
    "packed, accumulated": {"keys": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, "packed": 48},
}


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[JobFolder]:
    def made() -> Iterator[JobFolder]:
        for number in range(99):
            folder = JobFolder(tmp_path / f"job-{number}")
            folder.create({"parameters": {"pretrainedModelType": "sft/llama"}, "workers": 1})
            yield folder

    return made()


def ours(model: Any, folder: JobFolder, steps: int, layout: str, stage: int, **keys: Any) -> Ran:
    chosen = LAYOUTS[layout]
    zero = {"zero_optimization": {"stage": stage}}
    numbers = settings(deepspeed=zero, **{**SAME, **chosen["keys"], **keys})
    return run(model, ROWS, numbers, steps, folder, packed=chosen.get("packed"))


def weights(model: Any) -> dict[str, torch.Tensor]:
    """The trained weights, whole under ZeRO-3 too."""
    import deepspeed

    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    partitioned = [p for p in trained.values() if hasattr(p, "ds_id")]
    with deepspeed.zero.GatheredParameters(partitioned):
        return {name: p.detach().clone() for name, p in trained.items()}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_steps_gradients_are_those_of_plain_pytorch(
    tiny_model: Path, folders: Iterator[JobFolder], stage: int, layout: str, lora: bool
) -> None:
    """A step of SGD moves each weight by its gradient; at this learning rate so far that nothing is rounded away."""
    plain = load(tiny_model, lora=lora)
    plain_loss(plain, ROWS).backward()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    before = weights(load(tiny_model, lora=lora))
    ran = ours(load(tiny_model, lora=lora), next(folders), 1, layout, stage, optim="sgd", learning_rate=1e3)
    after = weights(ran.engine.module)
    assert after.keys() == expected.keys()
    for name, gradient in expected.items():
        found = (before[name] - after[name]) / 1e3
        assert float((found - gradient).norm() / gradient.norm()) < 1e-4, name


@pytest.mark.parametrize(
    ("lora", "stage", "layout"),
    [
        (False, 0, "rows"),
        (False, 1, "accumulated"),
        (False, 2, "packed"),
        (False, 3, "packed, accumulated"),
        (True, 0, "packed, accumulated"),
        (True, 1, "packed"),
        (True, 2, "accumulated"),
        (True, 3, "rows"),
    ],
)
def test_after_fifty_steps_the_losses_are_those_of_plain_pytorch(
    tiny_model: Path, folders: Iterator[JobFolder], lora: bool, stage: int, layout: str
) -> None:
    plain = load(tiny_model, lora=lora)
    optimizer = torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    losses = []
    for _ in range(50):
        loss = plain_loss(plain, ROWS)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    ran = ours(load(tiny_model, lora=lora), next(folders), 50, layout, stage, learning_rate=3e-3)
    assert losses[-1] < losses[0] - 0.2, "it learns"
    assert max(abs(a - b) / b for a, b in zip(ran.losses, losses, strict=True)) < 1e-3


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_loss_and_gradients_are_those_of_trl(tiny_model: Path, tmp_path: Path, lora: bool) -> None:
    """TRL's own trainer computes the loss of its own collator's batch of the same ids and masks."""
    pytest.importorskip("trl")
    from transformers import AutoTokenizer

    model = load(tiny_model, lora=lora)
    trainer = trl_trainer(model, AutoTokenizer.from_pretrained(tiny_model), tmp_path)
    batch = trainer.data_collator([trl_row(row) for row in ROWS])
    batch = {name: values for name, values in batch.items() if isinstance(values, torch.Tensor)}
    items = (batch["labels"][:, 1:] != -100).sum()
    loss = trainer.compute_loss(model, batch, num_items_in_batch=items)
    loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    own = load(tiny_model, lora=lora)
    mine = plain_loss(own, ROWS)
    assert mine.item() == pytest.approx(loss.item(), rel=1e-5), "the reference of the other tests is TRL's loss"
    mine.backward()
    for name, p in own.named_parameters():
        if p.requires_grad:
            assert float((p.grad - expected[name]).norm() / expected[name].norm()) < 1e-4, name


def trl_row(row: Encoded) -> dict[str, list[int]]:
    return {"input_ids": row.ids, "labels": [i if m else -100 for i, m in zip(row.ids, row.mask, strict=True)]}


def trl_trainer(model: Any, tokenizer: Any, folder: Path) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], max_length=None, disable_tqdm=True
    )
    rows = Dataset.from_list([trl_row(row) for row in ROWS])
    return SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
