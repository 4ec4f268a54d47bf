"""Tokens per second and MFU of the training loop on one GPU, with randomly initialised models of real shapes.

`make bench-gpu` runs it: LoRA on packed conversations and pretraining of all weights, with models shaped like Llama
3.2 1B and Llama 3.1 8B, in bf16, one process, on random ids. It is the loop with its data plan, its metrics and
DeepSpeed; Ray and the cell are not part of it. MFU is what metrics.jsonl says: model FLOPs (see `flops`) over the
device's peak. Goal: 0.45. `--smoke` runs tiny shapes on the CPU: that it runs, no more.

usage: gpu.py [--smoke] [--steps N] [NAME …]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from byzerllm_adapters.conversations import Encoded
from byzerllm_adapters.parameters import read
from byzerllm_trainers.engine import Rank, join_group
from byzerllm_trainers.job_folder import JobFolder, Record
from byzerllm_trainers.loop import train
from byzerllm_trainers.loop_settings import loop_settings
from byzerllm_trainers.packed_rows import PackedRows
from byzerllm_trainers.packing import Layout, PackedStream, Plan
from byzerllm_trainers.processes import Place
from byzerllm_trainers.shards import write_shards
from byzerllm_trainers.train_parameters import TrainParameters

GOAL = 0.45
WARM_UP = 5
LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        method: ``sft`` (LoRA) or ``sfft``.
        shape: The model's configuration.
        rows: Rows a step.
        width: Tokens of a row.
        keys: Keys of the method.
        zero: DeepSpeed's stage.
    """

    method: str
    shape: dict[str, Any]
    rows: int
    width: int
    keys: dict[str, Any]
    zero: int


CASES = {
    "sft_1b": Case("sft", LLAMA_1B, 8, 4096, {}, 0),
    "sft_8b": Case("sft", LLAMA_8B, 2, 4096, {"gradient_checkpointing": True}, 0),
    "sfft_1b": Case("sfft", LLAMA_1B, 8, 4096, {}, 1),
    # fp32 masters and AdamW's states of 8 B weights are 96 GB: with 8-bit states it fits into 140 GB
    "sfft_8b": Case("sfft", LLAMA_8B, 2, 4096, {"gradient_checkpointing": True, "optim": "adamw_bnb_8bit"}, 1),
}


class Enough(Exception):
    """All steps are measured."""


class Kept:
    """Keeps the loop's records, and ends the run before its checkpoint: that of 8 B weights has 100 GB."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def get_on(self) -> None:
        """Nobody watches."""

    def record(self, step: Record) -> None:
        """Keep a step."""
        self.records.append(step)

    def flush(self) -> None:
        """Raise `Enough`: a checkpoint would follow."""
        raise Enough

    def fence(self) -> None:
        """Nobody else goes on with it."""

    def saved(self, step: int) -> None:
        """Nothing is."""

    def note(self, message: str) -> None:
        """Nobody reads it."""

    def sampled(self, answers: object) -> None:
        """Nobody asks."""

    def should_stop(self) -> bool:
        """Return that nobody wants that."""
        return False


def run(name: str, case: Case, steps: int, work: Path) -> dict[str, Any]:
    """Train for some steps; return the medians after the warm-up."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device(device):
        config = LlamaConfig(max_position_embeddings=case.width, **case.shape)
        model: Any = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16 if case.method == "sft" else None)
    if case.method == "sft":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    raw = {"pretrainedModelType": f"{case.method}/llama", "localModelDir": "none"}
    keys = {"bf16": True, "per_device_train_batch_size": case.rows, "report_to": "none", **case.keys}
    raw |= {f"{case.method}.{key}": value for key, value in keys.items()}
    settings = loop_settings(
        read(TrainParameters, raw | {"deepspeedConfig": {"zero_optimization": {"stage": case.zero}}})
    )
    folder = JobFolder(work / name)
    folder.create({})
    kept = Kept()
    with contextlib.suppress(Enough):
        train(model, _plan(case, steps, folder), settings, steps, folder=folder, rank=Rank(0, 1), observer=kept)
    measured = kept.records[WARM_UP:]
    medians = {
        part: median(record[part] for record in measured)
        for part in measured[0]
        if part.endswith("seconds") or part in ("tokens_per_second", "mfu", "memory")
    }
    mfu = medians.get("mfu")
    return {"name": name, "goal": f">= {GOAL}", "met": None if mfu is None else mfu >= GOAL, **medians}


def _plan(case: Case, steps: int, folder: JobFolder) -> Plan:
    """Random ids: conversations of skewed lengths whose second half is learned, or one long text."""
    random = np.random.default_rng(0)
    tokens = steps * case.rows * case.width + 1
    layout = Layout(rows=case.rows, accumulation=1, world=1, seed=0)
    vocabulary = case.shape["vocab_size"]

    def conversations() -> Iterator[Encoded]:
        left = tokens
        while left > 0:
            length = int(np.clip(random.lognormal(6, 0.8), 8, case.width))
            left -= length
            yield Encoded(random.integers(3, vocabulary, length).tolist(), [k > length // 2 for k in range(length)])

    if case.method == "sft":
        return PackedRows(write_shards(folder.shards, conversations()), layout, case.width)
    text = Encoded(random.integers(3, vocabulary, tokens).tolist(), [True] * tokens)
    return PackedStream(write_shards(folder.shards, [text]), layout, case.width)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure training on one GPU; without names, all.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, on the CPU if need be; means nothing")
    parser.add_argument("--steps", type=int, default=25)
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available() and not options.smoke:
        parser.error("there is no GPU; --smoke runs tiny shapes")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    join_group(Rank(0, 1), [Place("127.0.0.1", port)], gpu=True)
    for name in options.names or CASES:
        case = CASES[name]
        if options.smoke:
            case = Case(case.method, TINY, 2, 64, {}, case.zero)
        with tempfile.TemporaryDirectory() as work:
            print(json.dumps(run(name, case, options.steps, Path(work))), flush=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
