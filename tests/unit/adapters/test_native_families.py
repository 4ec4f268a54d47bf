"""Families that transformers has natively compute what transformers computes, and speak their own format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, FalconConfig, Qwen2Config, Qwen3Config

from byzerllm_adapters.conversations import encode_conversation, encode_prompt
from byzerllm_adapters.registry import find

SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LIKE_LLAMA = {"intermediate_size": 96, "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 128}
CONFIGURATIONS = {
    "qwen2": ("qwen", Qwen2Config(**SIZES, **LIKE_LLAMA)),
    "qwen3": ("qwen", Qwen3Config(**SIZES, **LIKE_LLAMA)),
    "falcon": ("falcon", FalconConfig(**SIZES)),
    "falcon with several key heads": ("falcon", FalconConfig(**SIZES, new_decoder_architecture=True, num_kv_heads=2)),
    "any": ("auto", FalconConfig(**SIZES, alibi=True)),
}
CONVERSATION = [{"role": "user", "content": "rain?"}, {"role": "assistant", "content": "yes"}]
FORMATS = {
    "qwen": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nrain?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "falcon": "User: rain?\nFalcon:",
}
LEARNED = {"qwen": "yes<|im_end|>", "falcon": " yes</s>"}


@pytest.fixture
def tokenizer_of(tokenizers: Any, tmp_path: Path) -> Any:
    """Save a tokenizer without a template, and return the family's reading of it."""

    def read(family: str) -> Any:
        tokenizer = tokenizers("bytes", None, eos_token="</s>")
        if family == "qwen":
            tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.save_pretrained(tmp_path)
        return find(family).load_tokenizer(str(tmp_path))

    return read


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_and_greedy_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    family, configuration = CONFIGURATIONS[name]
    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(configuration).eval()
    theirs.save_pretrained(tmp_path)
    ours = find(family).load_model(str(tmp_path), dtype="float32", device="cpu")
    ids = torch.arange(3, 35).reshape(2, 16)
    with torch.no_grad():
        assert torch.equal(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)
    greedy = [model.generate(ids[:1], max_new_tokens=8, do_sample=False, pad_token_id=0) for model in (ours, theirs)]
    assert torch.equal(*greedy)


@pytest.mark.parametrize("family", FORMATS)
def test_a_conversation_has_the_familys_format_and_an_end_that_is_learned(tokenizer_of: Any, family: str) -> None:
    tokenizer = tokenizer_of(family)
    prompt = encode_prompt(tokenizer, CONVERSATION[:1])
    assert tokenizer.decode(prompt).removeprefix("<s>") == FORMATS[family]
    encoded = encode_conversation(tokenizer, CONVERSATION)
    assert encoded.ids[: len(prompt)] == prompt
    learned = [token for token, counts in zip(encoded.ids, encoded.mask, strict=True) if counts]
    assert tokenizer.decode(learned) == LEARNED[family]
