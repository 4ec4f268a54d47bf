"""Baichuan is Llama with a fused projection in its files; nothing of the difference is left once it is loaded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from byzerllm_adapters.baichuan import BaiChuanConfig, BaiChuanForCausalLM, load_model
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.registry import find

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
IDS = torch.arange(3, 35).reshape(2, 16)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return BaiChuanForCausalLM(BaiChuanConfig(**SIZES)).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_its_sizes_are_those_of_the_7b_model():
    config = BaiChuanConfig()
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (64000, 4096, 32)


def test_files_hold_the_fused_projection_and_read_back_the_same(model, tmp_path: Path):
    model.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert "model.layers.1.self_attn.W_pack.weight" in names
    assert not [name for name in names if "q_proj" in name]
    assert torch.equal(logits(load_model(str(tmp_path), dtype="float32")), logits(model))


def test_it_computes_what_llama_does(model):
    llama = LlamaForCausalLM(model.config).eval()
    llama.load_state_dict(model.state_dict())
    assert torch.equal(logits(llama), logits(model))


def test_a_missing_projection_is_named(model, tmp_path: Path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.self_attn.W_pack.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ByzerError, match=r"layers\.1\.self_attn\.[qkv]_proj"):
        load_model(str(tmp_path))


def test_the_family_is_found_by_its_name():
    assert find("sfft/baichuan").load_model is load_model
