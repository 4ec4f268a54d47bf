"""A merged model computes what base and adapter compute, or it is not written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.actions import merge as merging
from byzerllm_trainers.actions.merge import TOLERANCE, merge
from tests.tiny import make_model

IDS = torch.tensor([[5, 80, 200, 9, 33, 7]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits.float()


def make_adapter(base: Any, folder: Path, base_dir: Path, scale: float = 1.0, **keys: Any) -> Path:
    """An adapter as plain peft saves one, with weights that are not zero."""
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False, **keys)
    model = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(scale)
    model.peft_config["default"].base_model_name_or_path = str(base_dir)
    model.save_pretrained(folder)
    return folder


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def made(steps: Iterator[str | dict[str, Any]]) -> dict[str, Any]:
    *told, record = steps
    assert all(isinstance(line, str) for line in told)
    assert isinstance(record, dict)
    return record


@pytest.mark.parametrize("keys", [{}, {"use_dora": True}], ids=["lora", "dora"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_merged_model_equals_base_and_adapter(
    tiny_model: Path, tmp_path: Path, keys: dict[str, Any], dtype: str
) -> None:
    adapter = make_adapter(load(tiny_model), tmp_path / "adapter", tiny_model, **keys)
    facts = made(merge(adapter, tmp_path / "merged", dtype=dtype))
    kind = getattr(torch, dtype)
    merged = load(tmp_path / "merged", kind)
    expected = logits(PeftModel.from_pretrained(load(tiny_model, kind), adapter))
    assert (logits(merged) - expected).norm() / expected.norm() < TOLERANCE[dtype]
    assert (logits(merged) - logits(load(tiny_model, kind))).norm() / expected.norm() > 0.1
    assert {p.dtype for p in merged.parameters()} == {kind}
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == dtype
    assert 0 <= facts["difference"] <= facts["tolerance"] == TOLERANCE[dtype]
    assert facts["effect"] > 0.1
    assert (facts["base"], facts["adapter"]) == (str(tiny_model), str(adapter))


def test_an_adapter_that_was_trained_on_four_bits_is_merged_into_sixteen(tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig

    base_dir = make_model(tmp_path / "base", hidden=64)
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(base_dir, quantization_config=four, dtype=torch.float32)
    adapter = make_adapter(base, tmp_path / "adapter", base_dir)
    made(merge(adapter, tmp_path / "merged"))
    merged, plain = load(tmp_path / "merged", torch.bfloat16), load(base_dir, torch.bfloat16)
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    expected = logits(PeftModel.from_pretrained(plain, adapter))
    assert (logits(merged) - expected).norm() / expected.norm() < TOLERANCE["bfloat16"]


def test_a_base_that_is_stored_in_four_bits_is_refused(tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig

    base_dir = make_model(tmp_path / "base", hidden=64)
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(base_dir, quantization_config=four, dtype=torch.float32)
    base.save_pretrained(tmp_path / "four")
    AutoTokenizer.from_pretrained(base_dir).save_pretrained(tmp_path / "four")
    adapter = make_adapter(base, tmp_path / "adapter", tmp_path / "four")
    with pytest.raises(ByzerError, match="stored in few bits") as caught:
        made(merge(adapter, tmp_path / "merged"))
    assert "modelNameOrPath" in caught.value.do
    assert made(merge(adapter, tmp_path / "merged", base=base_dir))["base"] == str(base_dir)


def test_tokenizer_and_chat_template_come_along(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(load(tiny_model), tmp_path / "adapter", tiny_model)
    made(merge(adapter, tmp_path / "with-base's"))
    assert "Assistant" in AutoTokenizer.from_pretrained(tmp_path / "with-base's").chat_template
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(adapter)
    made(merge(adapter, tmp_path / "with-its-own"))
    assert AutoTokenizer.from_pretrained(tmp_path / "with-its-own").chat_template == tokenizer.chat_template


def test_a_base_that_has_moved_is_given(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(load(tiny_model), tmp_path / "adapter", Path("/nowhere/base"))
    with pytest.raises(ByzerError, match="is not at '/nowhere/base'"):
        made(merge(adapter, tmp_path / "merged"))
    facts = made(merge(adapter, tmp_path / "merged", base=tiny_model))
    assert facts["base"] == str(tiny_model)


def test_a_merge_that_computes_something_else_is_not_committed(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModelForCausalLM

    adapter = make_adapter(load(tiny_model), tmp_path / "adapter", tiny_model)
    monkeypatch.setattr(PeftModelForCausalLM, "merge_and_unload", lambda self, **_: self.unload(), raising=False)
    with pytest.raises(ByzerError, match="its logits differ by") as caught:
        made(merge(adapter, tmp_path / "merged"))
    assert "nothing was written" in caught.value.do
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_a_difference_that_is_no_number_is_no_match(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(load(tiny_model), tmp_path / "adapter", tiny_model)
    monkeypatch.setattr(merging, "_distance", lambda *_: float("nan"))
    with pytest.raises(ByzerError, match="differ by nan"):
        made(merge(adapter, tmp_path / "merged"))


def test_what_is_there_is_not_overwritten(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(load(tiny_model), tmp_path / "adapter", tiny_model)
    (tmp_path / "merged").mkdir()
    with pytest.raises(ByzerError, match="is there already"):
        made(merge(adapter, tmp_path / "merged"))


def test_an_interrupted_merge_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    adapter = make_adapter(load(tiny_model), tmp_path / "adapter", tiny_model)
    steps = merge(adapter, tmp_path / "merged")
    for line in steps:
        if line == "verifying":
            assert (tmp_path / ".merged.partial").is_dir()
            break
    steps.close()  # type: ignore[attr-defined]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_a_whole_model_is_no_adapter(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ByzerError, match="holds no adapter to merge"):
        made(merge(tiny_model, tmp_path / "merged"))
