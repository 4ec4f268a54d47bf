"""Tokenizers, templates and tiny models that the tests make themselves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from byzerllm_adapters import causal_lm, llama2

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin|>", "<|header|>", "<|eot|>"]
CORPUS = [
    "User: Hello there.\nAssistant: Hello, how are you today?\n",
    "system\nYou are a helpful assistant.\n[INST] What is the capital of France? [/INST] Paris is.",
    "你好，世界。今天天气很好，我们去公园吧。",
    "The quick brown fox jumps over the lazy dog. 0123456789",
] * 8

CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ '<|begin|>' }}{% for m in messages %}"
    "{{ '<|header|>' + m['role'] + '<|header|>\n\n' + m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|header|>assistant<|header|>\n\n' }}{% endif %}"
)
INST = (  # no generation prompt, a space on both sides of an answer, no markers
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
TEMPLATES = {
    "default": causal_lm.DEFAULT_TEMPLATE,
    "llama2": llama2.DEFAULT_TEMPLATE,
    "chatml": CHATML,
    "llama3": LLAMA3,
    "inst": INST,
}


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=480, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return tokenizer


def metaspace() -> Tokenizer:
    """As sentencepiece does it: a space in front of a text, unknown characters as bytes, BOS before plain
    text.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    # A newline is a byte of its own, as in Llama's vocabulary.
    corpus = [part for text in CORPUS for part in text.split("\n")]
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=256, special_tokens=SPECIAL))
    written = json.loads(tokenizer.to_str())
    vocabulary = written["model"]["vocab"]
    vocabulary.update({f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)})
    tokenizer = Tokenizer.from_str(json.dumps(written))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


RAW = {"bytes": byte_level, "metaspace": metaspace}


@pytest.fixture(scope="session")
def tokenizers() -> Callable[..., PreTrainedTokenizerFast]:
    """A function that returns the tokenizer of a kind ("bytes", "metaspace") with a template of a name, or
    none.
    """
    made: dict[tuple[str, str | None], PreTrainedTokenizerFast] = {}
    raw = {name: make().to_str() for name, make in RAW.items()}

    def make(kind: str = "bytes", template: str | None = "default", **options: Any) -> PreTrainedTokenizerFast:
        if options or (kind, template) not in made:
            names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | options
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(raw[kind]), **names)
            tokenizer.chat_template = TEMPLATES[template] if template else None
            if options:
                return tokenizer
            made[kind, template] = tokenizer
        return made[kind, template]

    return make


def tiny_llama(vocabulary: int, **options: Any) -> LlamaForCausalLM:
    import torch

    torch.manual_seed(0)
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.5,  # so that greedy answers vary
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**(sizes | options))).eval()


@pytest.fixture
def make_model() -> Callable[..., LlamaForCausalLM]:
    return tiny_llama


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory, tokenizers: Callable[..., Any]) -> Path:
    """A folder with a tiny Llama and a byte-level tokenizer without a template."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = tokenizers("bytes", None)
    tiny_llama(512).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
