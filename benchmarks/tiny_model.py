"""The model and the data that every figure uses, made here from nothing but the Python standard library.

A Llama of 5.0 M parameters with random weights, a byte-level BPE tokenizer with a chat template, 2,000 rows of
instructions whose lengths are skewed as real ones are, and plain text. The text is the library's source code.
"""

from __future__ import annotations

import json
import random
import sysconfig
from pathlib import Path
from typing import Any

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KEY_VALUE_HEADS = 256, 704, 4, 4, 2
VOCABULARY, CONTEXT = 4096, 2048
ROWS, TEXT_FILES = 2000, 60
SPECIAL = ("<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class TinyModel:
    """Where things are.

    Attributes:
        model: A transformers folder.
        rows: A folder with one .jsonl file: instruction, input, output.
        text: A folder of .txt files.
    """

    def __init__(self, folder: Path) -> None:
        self.model, self.rows, self.text = folder / "model", folder / "rows", folder / "text"


def tiny_model(work: Path) -> TinyModel:
    """Return the model and data below ``work``, made when they are not there yet (in about ten seconds)."""
    tiny = TinyModel(work / "tiny")
    if not tiny.text.exists():
        sources = _sources()
        _write_model(tiny.model, list(sources.values()))
        _write_rows(tiny.rows, list(sources.values()))
        _write_text(tiny.text, sources)
    return tiny


def _sources() -> dict[str, str]:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return {file.stem: file.read_text(encoding="utf-8", errors="ignore") for file in files}


def _write_model(folder: Path, texts: list[str]) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(texts)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    begin, end, pad = SPECIAL[:3]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=begin, eos_token=end, pad_token=pad)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _write_rows(folder: Path, texts: list[str]) -> None:
    """Cut paragraphs in two: the shorter first part is the input, the rest the answer; neither is blank."""
    chance = random.Random(7)
    paragraphs = [part.strip() for text in texts for part in text.split("\n\n")]
    paragraphs = [part for part in paragraphs if 40 < len(part) < 6000]
    chance.shuffle(paragraphs)
    folder.mkdir(parents=True)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for paragraph in paragraphs[:ROWS]:
            cut = chance.randint(10, min(200, len(paragraph) // 2))
            row = {"instruction": "Continue this code.", "input": paragraph[:cut], "output": paragraph[cut:]}
            file.write(json.dumps(row) + "\n")


def _write_text(folder: Path, sources: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in list(sources.items())[:TEXT_FILES]:
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
