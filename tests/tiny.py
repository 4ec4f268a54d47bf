"""Tiny models and data that the tests make themselves: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

WORDS = ["red", "green", "blue", "small", "large", "old", "new", "round"]
THINGS = ["stone", "house", "tree", "river", "bird", "door", "cloud", "road"]


def texts(count: int = 400) -> pd.DataFrame:
    """Short documents of a few words, in English and Chinese."""
    pairs = [(WORDS[i % 8], THINGS[(i * 3 + i // 8) % 8]) for i in range(count)]
    return pd.DataFrame({"text": [f"The {a} {b} is {a}. 这是{b}。" for a, b in pairs]})


def instructions(count: int = 64) -> pd.DataFrame:
    """Alpaca rows with answers of skewed lengths."""
    rows = [
        {
            "instruction": f"Describe the {THINGS[i % 8]}.",
            "output": f"The {THINGS[i % 8]} is {WORDS[i % 8]}. " * (1 + i % 5),
        }
        for i in range(count)
    ]
    return pd.DataFrame(rows)


def preferences(count: int = 64) -> pd.DataFrame:
    """Pairs of answers to a question: the better one is in English, the worse one in Chinese."""
    rows = [
        {
            "prompt": f"Describe the {THINGS[i % 8]}.",
            "chosen": f"The {THINGS[i % 8]} is {WORDS[i % 7]}.",
            "rejected": f"这是{THINGS[i % 8]}。" * (1 + i % 3),
        }
        for i in range(count)
    ]
    return pd.DataFrame(rows)


def make_model(folder: Path, *, hidden: int = 32, layers: int = 2, positions: int = 256, seed: int = 0) -> Path:
    """Save an untrained Llama of about 50,000 parameters with a byte-level BPE tokenizer into ``folder``."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts().text, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=384,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=positions,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_reciter(folder: Path) -> Path:
    """Save a model that, at temperature 0, recites the alphabet until its context of 4,096 tokens is full.

    Its layers add nothing to a token's embedding, and its head maps each letter's embedding to the next letter.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_model(folder, positions=4096)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    letters = tokenizer.convert_tokens_to_ids(list("abcdefghijklmnopqrstuvwxyz"))
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        directions = torch.nn.functional.normalize(embedding, dim=1)
        head.zero_()
        head[[*letters[1:], letters[0]]] = directions[letters]
    model.save_pretrained(folder)
    return folder
