"""The code blocks of Byzer-LLM's two original documents, and all that is changed about them to run here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(os.environ.get("BYZERLLM_DOCUMENTS", Path(__file__).parents[3] / "shared" / "seeds"))
"""The documents are not part of this project; where they are not at hand, their tests are skipped."""

MODULES = {
    "byzerllm.alpha_moss": "byzerllm_adapters.moss",
    "byzerllm.utils.fulltune.pretrain": "byzerllm_trainers.fulltune",
    "byzerllm.utils.fulltune.base_model.configuration_baichuan": "byzerllm_adapters.baichuan",
    "byzerllm.utils.fulltune.base_model.modeling_baichuan": "byzerllm_adapters.baichuan",
    "..utils.sft": "byzerllm_trainers.fulltune",
    "..utils.fulltune.pretrain": "byzerllm_trainers.fulltune",
}

SIZES = {
    '"num_gpus=2"': '"num_gpus=1"',
    '"num_gpus=4"': '"num_gpus=1"',
    '"num_gpus=12"': '"num_gpus=2"',
    '"num_gpus=24"': '"num_gpus=2"',
    '"num_gpus": 16': '"num_gpus": 2',
    "num_workers=16": "num_workers=2",
    'partitionNum="24"': 'partitionNum="2"',
    "BaiChuanConfig()": "BaiChuanConfig(vocab_size=384, hidden_size=32, intermediate_size=64, num_hidden_layers=2, "
    "num_attention_heads=2, max_position_embeddings=256)",
    'os.environ["CUDA_VISIBLE_DEVICES"]="5"': 'os.environ["CUDA_VISIBLE_DEVICES"]=""',
    "tokenizer.model": "tokenizer.json",
}

PRELUDE = """
from collections.abc import Generator
from typing import Any, Dict, List
from byzerllm_adapters.data import BlockRow, DataServer
from byzerllm_trainers.fulltune import DeepSpeedTrain
DEFUALT_CONFIG = ds_config
"""
"""What the documents leave undefined: imports that they forgot, and DeepSpeed's configuration, for which the second
document's own stands.
"""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        document: Which of the two, 0 or 1.
        language: ``sql`` or ``python``.
        text: What stands between the fences.
    """

    document: int
    language: str
    text: str

    def here(self, paths: Mapping[str, str]) -> str:
        """Return the text with the declared substitutions, each place replaced once, by the longest that fits."""
        here = {**MODULES, **SIZES, **paths}
        longest_first = sorted(here, key=lambda there: -len(there))
        return re.sub("|".join(map(re.escape, longest_first)), lambda match: here[match[0]], self.text)


def documents() -> list[str]:
    """Return the two documents: how to adapt a model, and how to pretrain."""
    return [file.read_text("utf-8") for file in sorted(FOLDER.glob("*.txt"))]


def blocks() -> list[Block]:
    """Return all fenced blocks of SQL and Python, in order."""
    fence = re.compile(r"^```(sql|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [
        Block(number, match[1], match[2]) for number, text in enumerate(documents()) for match in fence.finditer(text)
    ]
