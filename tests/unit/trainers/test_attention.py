"""Attention in fp32 inside a bf16 model: the same model, and nothing of it in what is saved."""

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from byzerllm_trainers.attention import attend_in_fp32
from tests.unit.trainers.helpers import load

IDS = torch.arange(3, 63).reshape(2, 30)


class AttentionDtypes(TorchDispatchMode):
    """Notes in which precision attention is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "scaled_dot_product" in str(operator):
            self.seen |= {argument.dtype for argument in args if isinstance(argument, torch.Tensor)}
        return operator(*args, **(kwargs or {}))


def bf16(folder: Path, attention: str = "sdpa") -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation=attention)


def test_attention_is_computed_in_fp32_forward_and_backward(tiny_model: Path) -> None:
    model = bf16(tiny_model)
    attend_in_fp32(model)
    with AttentionDtypes() as dtypes:
        logits = model(input_ids=IDS).logits
        logits.float().sum().backward()
    assert dtypes.seen == {torch.float32}
    assert logits.dtype == torch.bfloat16


def test_it_is_causal_and_heeds_a_mask_as_before(tiny_model: Path) -> None:
    exact, model = load(tiny_model), bf16(tiny_model)
    attend_in_fp32(model)
    mask = torch.ones_like(IDS)
    mask[0, :7] = 0
    for given in ({}, {"attention_mask": mask}):
        expected = exact(input_ids=IDS, **given).logits[:, 7:]
        assert torch.allclose(model(input_ids=IDS, **given).logits[:, 7:].float(), expected, atol=0.02)
    changed = IDS.clone()
    changed[:, -1] = 0
    assert torch.equal(model(input_ids=IDS).logits[:, :-1], model(input_ids=changed).logits[:, :-1])


def test_a_saved_model_knows_nothing_of_it(tiny_model: Path, tmp_path: Path) -> None:
    model = bf16(tiny_model)
    attend_in_fp32(model)
    model.save_pretrained(tmp_path)
    assert "fp32" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_another_kind_of_attention_is_left_alone(tiny_model: Path) -> None:
    model = bf16(tiny_model, "eager")
    attend_in_fp32(model)
    assert model.config._attn_implementation == "eager"
