"""The gradients of our loss are those of plain PyTorch and transformers on the same conversations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.loss import NextToken
from byzerllm_trainers.packing import IGNORED, Batch, GroupedRows, Layout
from tests.unit.trainers.helpers import examples, load, plain_loss, shards_of

ROWS = examples([40, 7, 23, 12, 3, 31, 18, 9])


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize(
    "layout",
    [Layout(8, 1, 1, 0), Layout(4, 2, 1, 0), Layout(2, 4, 1, 0), Layout(2, 2, 2, 0), Layout(3, 2, 2, 0)],
    ids=lambda layout: f"{layout.rows}x{layout.accumulation}x{layout.world}",
)
def test_gradients_equal_those_of_the_mean_over_all_tokens(
    tiny_model: Path, tmp_path: Path, lora: bool, layout: Layout
) -> None:
    """However a step's rows are dealt to micro-batches and ranks, with unequal token counts."""
    plain = load(tiny_model, lora=lora)
    loss = plain_loss(plain, ROWS)
    loss.backward()

    ours = load(tiny_model, lora=lora)
    plan = GroupedRows(shards_of(tmp_path, ROWS), layout)
    steps = [plan.step(0, rank) for rank in range(layout.world)]
    total = 0.0
    for step in steps:
        for batch in step.batches:
            part = NextToken().summed_loss(ours, batch) / step.targets
            part.backward()
            total += part.item()

    assert total == pytest.approx(loss.item(), rel=1e-5)
    expected, found = gradients(plain), gradients(ours)
    assert found.keys() == expected.keys()
    assert all(("lora_" in name) == lora for name in found)
    assert max(relative(found[name], expected[name]) for name in expected) < 1e-4


def test_the_loss_at_picked_positions_is_that_of_all_logits(tiny_model: Path, tmp_path: Path) -> None:
    model = load(tiny_model)
    [batch] = GroupedRows(shards_of(tmp_path, ROWS), Layout(8, 1, 1, 0)).step(0, 0).batches
    logits = model(input_ids=torch.from_numpy(batch.input_ids)).logits
    labels = torch.from_numpy(batch.labels)
    full = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    assert NextToken().summed_loss(model, batch).item() == pytest.approx(full.item(), rel=1e-6)


def test_the_head_sees_supervised_positions_only_and_is_left_as_it_was(tiny_model: Path, tmp_path: Path) -> None:
    model = load(tiny_model)
    step = GroupedRows(shards_of(tmp_path, ROWS), Layout(8, 1, 1, 0)).step(0, 0)
    shapes: list[torch.Size] = []
    handle = model.lm_head.register_forward_hook(lambda _module, _inputs, logits: shapes.append(logits.shape))
    NextToken().summed_loss(model, step.batches[0])
    handle.remove()
    assert shapes == [(step.targets, 384)]
    assert model(input_ids=torch.from_numpy(step.batches[0].input_ids)).logits.ndim == 3


def test_what_follows_a_row_changes_nothing(tiny_model: Path) -> None:
    """Rows are padded on the right and carry no attention mask."""
    model = load(tiny_model)
    ids, labels = np.array([[5, 6, 7]]), np.array([[6, 7, 8]])
    padded = Batch(np.pad(ids, ((0, 0), (0, 9))), np.pad(labels, ((0, 0), (0, 9)), constant_values=IGNORED))
    assert NextToken().summed_loss(model, padded).item() == pytest.approx(
        NextToken().summed_loss(model, Batch(ids, labels)).item(), rel=1e-5
    )


def test_a_row_that_teaches_nothing_has_zero_gradients(tiny_model: Path) -> None:
    model = load(tiny_model)
    loss = NextToken().summed_loss(model, Batch(np.array([[5, 6, 7]]), np.full((1, 3), IGNORED)))
    loss.backward()
    assert loss.item() == 0
    found = gradients(model)
    assert "model.layers.0.mlp.up_proj.weight" in found
    assert all(not gradient.any() for gradient in found.values())


def test_a_model_without_a_head_is_refused() -> None:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(ByzerError, match="LlamaModel has no language-model head"):
        NextToken().summed_loss(LlamaModel(config), Batch(np.array([[5]]), np.array([[6]])))
