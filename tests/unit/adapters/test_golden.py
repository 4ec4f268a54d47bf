"""Checkpoints in their families' original layout give what the original code gave, without remote code.

`tests/golden` holds tiny ones with random weights, and beside them the original code's logits and greedy tokens.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.registry import find

GOLDEN = Path(__file__).parents[2] / "golden"
FOLDERS = {"baichuan": GOLDEN / "baichuan-7b", "moss": GOLDEN / "moss-moon-003", "alpha_moss": GOLDEN / "moss-moon-003"}
FUSED = {"baichuan": "model.layers.1.self_attn.W_pack.weight", "moss": "transformer.h.1.attn.qkv_proj.weight"}


@pytest.fixture(params=FOLDERS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def golden(family: str) -> dict[str, torch.Tensor]:
    return load_file(FOLDERS[family] / "golden.safetensors")


def model_of(family: str, folder: Path | None = None) -> Any:
    return find(family).load_model(str(folder or FOLDERS[family]), dtype="float32", device="cpu")


def test_logits_are_the_original_codes(family: str) -> None:
    expected, model = golden(family), model_of(family)
    with torch.no_grad():
        found = model(input_ids=expected["input_ids"], attention_mask=expected["attention_mask"]).logits
    seen = expected["attention_mask"].bool()
    assert (found - expected["logits"])[seen].abs().max() < 1e-4


def test_greedy_tokens_are_the_original_codes_with_the_cache_on(family: str) -> None:
    expected, model = golden(family), model_of(family)
    row = expected["input_ids"][:1][:, expected["attention_mask"][0].bool()]
    made = model.generate(
        row, attention_mask=torch.ones_like(row), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert made[0, row.shape[1] :].tolist() == expected["greedy_12"].tolist()


@pytest.mark.parametrize("family", FUSED)
def test_a_tensor_that_is_missing_is_named(family: str, tmp_path: Path) -> None:
    folder = tmp_path / family
    shutil.copytree(FOLDERS[family], folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors[FUSED[family]]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ByzerError, match=r"layers\.1\.self_attn|h\.1\.attn\.qkv_proj"):
        model_of(family, folder)


def test_what_is_saved_is_read_back_the_same(family: str, tmp_path: Path) -> None:
    expected, model = golden(family), model_of(family)
    model.save_pretrained(tmp_path)
    find(family).load_tokenizer(str(FOLDERS[family])).save_pretrained(tmp_path)
    with torch.no_grad():
        ours, theirs = (each(input_ids=expected["input_ids"]).logits for each in (model, model_of(family, tmp_path)))
    assert torch.equal(ours, theirs)
    assert find(family).load_tokenizer(str(tmp_path)).chat_template


@pytest.mark.parametrize("text", ["def main(): pass\n", " two  spaces", "你好, world", "", "\tx"])
def test_baichuans_ids_are_those_of_its_sentencepiece_model(text: str) -> None:
    """Its own class passes every text to that, and puts nothing around it."""
    from sentencepiece import SentencePieceProcessor

    theirs = SentencePieceProcessor(model_file=str(FOLDERS["baichuan"] / "tokenizer.model"))
    ours = find("baichuan").load_tokenizer(str(FOLDERS["baichuan"]))
    assert ours(text).input_ids == theirs.encode(text)
    assert ours("<s>").input_ids[-1] == theirs.bos_id()


def test_its_tokenizer_is_read_from_its_own_files_and_answers(family: str) -> None:
    model, tokenizer = find(family).init_model(str(FOLDERS[family]), {"dtype": "float32"})
    text, brief = "def main(): pass", [{"role": "system", "content": "be brief"}]
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    *_, (answer, facts) = model.stream_chat(tokenizer, "hello", brief, temperature=0.0, max_new_tokens=4)
    assert facts["generated_tokens_count"] <= 4
    assert isinstance(answer, str)
