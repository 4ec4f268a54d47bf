"""How much a step computes, counted against torch's own counter."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from byzerllm_trainers.flops import PEAKS, model_flops, peak_flops
from byzerllm_trainers.loss import NextToken
from byzerllm_trainers.packing import Batch
from byzerllm_trainers.preferences import Preferences
from tests.unit.trainers.helpers import load


@pytest.mark.parametrize("lora", [False, True])
def test_a_steps_flops_are_those_that_torch_counts(tiny_model: Path, lora: bool) -> None:
    model = load(tiny_model, lora=lora)
    model.set_attn_implementation("eager")  # torch counts plain products
    ids = torch.randint(3, 300, (4, 48)).numpy()
    with FlopCounterMode(display=False) as counter:
        NextToken().summed_loss(model, Batch(ids, ids)).backward()
    ours = model_flops(model).of_step(tokens=4 * 48, supervised=4 * 48, width=48)
    # the first layer's activations' gradients are needed by nobody below an embedding that is not trained
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.12 if lora else 0.02)


def test_a_preference_step_counts_its_reference_too(tiny_model: Path) -> None:
    model = load(tiny_model, lora=True)
    model.set_attn_implementation("eager")
    ids = torch.randint(3, 300, (4, 48)).numpy()
    objective = Preferences(0.1, "sigmoid")
    with FlopCounterMode(display=False) as counter:
        objective.summed_loss(model, Batch(ids, ids))[0].backward()
    flops = model_flops(model)
    ours = flops.of_step(4 * 48, 4 * 48, 48, objective.extra_forwards)
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.12)
    assert flops.of_step(4 * 48, 4 * 48, 48) < 0.8 * counter.get_total_flops(), "without it a quarter is missing"


def test_logits_of_tokens_that_are_not_learned_are_not_computed(tiny_model: Path) -> None:
    flops = model_flops(load(tiny_model))
    all_of_them, none = flops.of_step(100, 100, 10), flops.of_step(100, 0, 10)
    assert all_of_them - none == 6 * flops.head * 100


def test_without_a_known_device_there_is_no_utilisation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_flops(half=False) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 PCIe")
    assert peak_flops(half=True) == 756e12, "the most exact name counts"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Something new")
    assert peak_flops(half=True) is None
    assert all(peak > 1e13 for peak in PEAKS.values())
