"""The traced step is the real model's."""

from pathlib import Path
from typing import Any

import pytest
import torch

from byzerllm_adapters.loading import load_model, shapes_only
from byzerllm_trainers.memory_trace import BatchShape, Moment, trace_optimizer, trace_step

SHAPE = BatchShape(rows=4, width=64, supervised=10)
VOCABULARY = 384


def shapes(model_dir: Path) -> Any:
    with shapes_only():
        return load_model(model_dir, dtype="float32").train()


def peak(moments: list[Moment]) -> int:
    return max(moment.activations + moment.logits for moment in moments)


def test_it_holds_what_the_real_forward_keeps_for_backward(tiny_model: Path) -> None:
    model = load_model(tiny_model, dtype="float32", device="cpu").train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(input_ids=torch.zeros(SHAPE.rows, SHAPE.width, dtype=torch.long), use_cache=False).logits
    every = BatchShape(SHAPE.rows, SHAPE.width, SHAPE.rows * SHAPE.width)
    moments = trace_step(shapes(tiny_model), every)
    at_the_loss = moments[0].activations
    assert sum(kept.values()) <= at_the_loss <= 1.2 * sum(kept.values()), "and what the head's gradients begin with"
    assert logits.shape[-1] == VOCABULARY


def test_logits_are_those_of_supervised_positions(tiny_model: Path) -> None:
    for supervised in (50, 200):
        moments = trace_step(shapes(tiny_model), BatchShape(4, 64, supervised))
        whole = max(moments, key=lambda moment: moment.logits).logits
        assert whole % (supervised * VOCABULARY * 4) == 0
        assert 2 <= whole // (supervised * VOCABULARY * 4) <= 4


def test_packed_rows_have_a_mask_of_their_own(tiny_model: Path) -> None:
    packed = BatchShape(SHAPE.rows, SHAPE.width, SHAPE.supervised, packed=True)
    more = peak(trace_step(shapes(tiny_model), packed)) - peak(trace_step(shapes(tiny_model), SHAPE))
    assert more >= SHAPE.rows * SHAPE.width**2


def test_checkpointing_keeps_less(tiny_model: Path) -> None:
    plain, checkpointed = shapes(tiny_model), shapes(tiny_model)
    checkpointed.gradient_checkpointing_enable({"use_reentrant": False})
    assert peak(trace_step(checkpointed, SHAPE)) < 0.7 * peak(trace_step(plain, SHAPE))


def test_all_trained_weights_get_a_gradient_and_none_counts_as_an_activation(tiny_model: Path) -> None:
    model = shapes(tiny_model)
    trained = sum(p.numel() for p in model.parameters())
    moments = trace_step(model, BatchShape(1, 2, 1))
    assert max(moment.gradients for moment in moments) == trained
    assert peak(moments) < 4 * trained


@pytest.mark.parametrize(("optimizer", "state"), [(torch.optim.AdamW, 8), (torch.optim.SGD, 0)])
def test_an_optimizers_state_is_its_own(optimizer: Any, state: int) -> None:
    weight = torch.nn.Parameter(torch.empty(100, 100, device="meta"))
    held, temporary = trace_optimizer(optimizer([weight], lr=0.1))
    assert held == pytest.approx(state * 10_000, abs=100)
    assert temporary <= 2 * 40_000 + 100
