"""Examples, settings and runs of the one loop that the trainers' tests share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from byzerllm_adapters.conversations import Encoded
from byzerllm_adapters.parameters import read
from byzerllm_trainers.job_folder import JobFolder, Record
from byzerllm_trainers.loop_settings import LoopSettings, loop_settings
from byzerllm_trainers.packed_rows import PackedRows
from byzerllm_trainers.packing import GroupedRows, Layout, Plan
from byzerllm_trainers.shards import Shards, write_shards
from byzerllm_trainers.train_parameters import TrainParameters

VOCABULARY = 384


def examples(lengths: Sequence[int], seed: int = 0) -> list[Encoded]:
    """Random ids; the loss applies from a random place to the end."""
    random = np.random.default_rng(seed)
    made = []
    for length in lengths:
        begin = int(random.integers(0, max(1, length - 1)))
        ids = random.integers(3, VOCABULARY, length).tolist()
        made.append(Encoded(ids, [position >= begin for position in range(length)]))
    return made


def skewed_lengths(count: int, seed: int = 0) -> list[int]:
    """Lengths as conversations have them: many short ones, a few very long."""
    drawn = np.random.default_rng(seed).lognormal(4, 0.8, count)
    return np.clip(drawn, 4, 1024).astype(int).tolist()


def shards_of(folder: Path, rows: list[Encoded]) -> Shards:
    return write_shards(folder / "shards", rows)


def settings(method: str = "sft", deepspeed: dict[str, Any] | None = None, **keys: Any) -> LoopSettings:
    """Settings of a run in fp32, from the keys of a cell."""
    raw: dict[str, Any] = {"pretrainedModelType": f"{method}/llama", "localModelDir": "none"}
    raw |= {} if "fp16" in keys or "bf16" in keys else {f"{method}.bf16": False}
    raw |= {key if key in TrainParameters.model_fields else f"{method}.{key}": value for key, value in keys.items()}
    return loop_settings(read(TrainParameters, raw | ({"deepspeedConfig": deepspeed} if deepspeed else {})))


def load(model_dir: Path, *, lora: bool = False, dropout: float = 0.0) -> Any:
    """The tiny model in fp32, whole or with a LoRA adapter; the same weights at every call."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    if not lora:
        return model
    config = LoraConfig(
        r=4,
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        init_lora_weights=False,  # B is not zero: every matrix has a gradient at the first step
    )
    return get_peft_model(model, config)


def plain_loss(model: Any, rows: list[Encoded]) -> Any:
    """The mean loss as transformers computes it: padded, with an attention mask, -100 where it does not apply."""
    import torch

    width = max(len(row.ids) for row in rows)
    pad = [width - len(row.ids) for row in rows]
    ids = torch.tensor([row.ids + [0] * more for row, more in zip(rows, pad, strict=True)])
    attention = torch.tensor([[1] * len(row.ids) + [0] * more for row, more in zip(rows, pad, strict=True)])
    labels = torch.tensor(
        [
            [token if learn else -100 for token, learn in zip(row.ids, row.mask, strict=True)] + [-100] * more
            for row, more in zip(rows, pad, strict=True)
        ]
    )
    return model(input_ids=ids, attention_mask=attention, labels=labels).loss


@dataclass
class Ran:
    """What a run left behind."""

    engine: Any
    outcome: Any
    records: list[Record]
    saved: list[int]
    samples: list[Record]
    notes: list[str]

    @property
    def losses(self) -> list[float]:
        return [record["loss"] for record in self.records]

    def digest(self) -> str:
        """SHA-256 of all weights."""
        state = sorted(self.engine.module.state_dict().items())
        return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for _, t in state)).hexdigest()


def run(
    model: Any,
    rows: list[Encoded],
    chosen: LoopSettings,
    total: int,
    folder: JobFolder,
    should_stop: Callable[[int], bool] = lambda _step: False,
    held_out: list[Encoded] | None = None,
    sampler: Any = None,
    packed: int | None = None,
) -> Ran:
    """Train in this process.

    Args:
        should_stop: Asked with the number of steps recorded so far.
        packed: Pack the rows into this many tokens.
    """
    from byzerllm_trainers.engine import Rank
    from byzerllm_trainers.loop import train

    layout = Layout(rows=chosen.rows, accumulation=chosen.accumulation, world=1, seed=chosen.data_seed)
    shards = shards_of(folder.data, rows)
    plan: Plan = GroupedRows(shards, layout, grouped=chosen.group_by_length)
    if packed is not None:
        plan = PackedRows(shards, layout, packed)
    evaluation = None
    if held_out is not None:
        eval_layout = Layout(rows=chosen.eval_rows, accumulation=1, world=1, seed=0)
        evaluation = GroupedRows(write_shards(folder.held_out, held_out), eval_layout)
    records: list[Record] = []
    saved: list[int] = []
    samples: list[Record] = []
    notes: list[str] = []
    engine, outcome = train(
        model,
        plan,
        chosen,
        total,
        folder=folder,
        rank=Rank(0, 1),
        observer=Seen(records, saved, samples, notes, lambda: should_stop(len(records) + 1)),
        held_out=evaluation,
        sampler=sampler,
    )
    return Ran(engine, outcome, records, saved, samples, notes)


@dataclass
class Seen:
    """Keeps what the loop tells."""

    records: list[Record]
    checkpoints: list[int]
    samples: list[Record]
    notes: list[str]
    should_stop: Callable[[], bool]

    def record(self, step: Record) -> None:
        self.records.append(step)

    def get_on(self) -> None: ...

    def flush(self) -> None: ...

    def fence(self) -> None: ...

    def saved(self, step: int) -> None:
        self.checkpoints.append(step)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def sampled(self, answers: Sequence[Record]) -> None:
        self.samples += answers
