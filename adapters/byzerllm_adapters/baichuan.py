"""Baichuan-7B without remote code: Llama whose query, key and value projections lie fused in its files.

Source: the public Baichuan-7B checkpoint's layout, `self_attn.W_pack` of `[3·hidden, hidden]`. transformers splits it
when a folder is read and joins it again when one is written, so that everything in between is Llama.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaTokenizer
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, WeightConverter

from byzerllm_adapters import causal_lm, loading
from byzerllm_adapters.causal_lm import load_model, stream_chat
from byzerllm_adapters.tokenizer_file import load_tokenizer_file

__all__ = [
    "DEFAULT_TEMPLATE",
    "BaiChuanConfig",
    "BaiChuanForCausalLM",
    "init_model",
    "load_model",
    "load_tokenizer",
    "stream_chat",
]

DEFAULT_TEMPLATE = causal_lm.DEFAULT_TEMPLATE
"""Baichuan-7B is a base model: it was trained on no chat format of its own."""


class BaiChuanConfig(LlamaConfig):  # type: ignore[misc]
    """A Baichuan model's sizes; those of Baichuan-7B by default."""

    model_type = "baichuan"
    vocab_size: int = 64000
    max_position_embeddings: int = 4096
    pad_token_id: int | None = 0


class BaiChuanForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
    """Baichuan for training from scratch (`BaiChuanForCausalLM(BaiChuanConfig())`) and for its checkpoints."""

    config_class = BaiChuanConfig
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"rotary_emb\.inv_freq"]


register_checkpoint_conversion_mapping(
    "baichuan",
    [
        WeightConverter(
            source_patterns="self_attn.W_pack",
            target_patterns=["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            operations=[Chunk(dim=0)],
        )
    ],
    overwrite=True,
)
AutoConfig.register("baichuan", BaiChuanConfig, exist_ok=True)
AutoModelForCausalLM.register(BaiChuanConfig, BaiChuanForCausalLM, exist_ok=True)


def read_tokenizer(folder: Path) -> Any:
    """Read Baichuan's own files as Llama's, which they are, but for what sentencepiece does to a text before."""
    tokenizer = LlamaTokenizer.from_pretrained(folder, local_files_only=True)
    if (folder / "tokenizer.model").is_file():  # else it was saved by us, and says all itself
        own = load_tokenizer_file(folder / "tokenizer.model").backend_tokenizer
        tokenizer.backend_tokenizer.normalizer, tokenizer.backend_tokenizer.decoder = own.normalizer, own.decoder
    return tokenizer


load_tokenizer: Any = partial(loading.load_tokenizer, template=DEFAULT_TEMPLATE, original=read_tokenizer)
init_model = partial(causal_lm.init_model, load_tokenizer=load_tokenizer)
