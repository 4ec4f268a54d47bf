"""`saving`: how long a checkpoint holds training, over the time that copying its content to memory takes.

A model of 30 M weights is pretrained by one worker (fp32, ZeRO 2, AdamW), and saves a checkpoint of 0.5 GB every few
steps. Held: from the record of the step after which a checkpoint is begun to the beginning of the next step, less what
the same takes after other steps (medians). Beside it: the same checkpoint's tensors, loaded in this process when
nothing else runs, copied in memory by the function that the loop uses, with as many threads. The figure is the ratio
of the medians. `saving_slower` is what the writing thread costs besides: a step during which it writes, over others.
"""

from __future__ import annotations

import json
import shutil
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from measure import Figure
from our_jobs import CORES, session
from tiny_model import CONTEXT, VOCABULARY, tiny_model

from byzerllm_trainers.checkpoint import committed
from byzerllm_trainers.job_folder import Record
from byzerllm_trainers.writer import in_memory

SMOKE = {"steps": 12, "save_steps": 4, "hidden": 64, "copies": 2}
WARM_UP_STEPS = 3


def measure(work: Path, steps: int = 60, save_steps: int = 10, hidden: int = 512, copies: int = 10) -> list[Figure]:
    job: Any = session(1).run(_keys(work, steps, save_steps, hidden))
    job.wait()
    records = job.folder.metrics()[WARM_UP_STEPS:]
    gaps = [(one["step"], _between(one, other), other) for one, other in pairwise(records)]
    usual = median(gap for step, gap, _ in gaps if step % save_steps)
    held = [gap - usual for step, gap, _ in gaps if step % save_steps == 0]
    copied = _copy_seconds(committed(job.folder)[-1], copies)
    beside = [next_step["seconds"] for step, _, next_step in gaps if step % save_steps == 0]
    alone = [next_step["seconds"] for step, _, next_step in gaps if step % save_steps > save_steps // 2]
    raw = {"held": held, "copied": copied}
    return [
        Figure("saving_hold", median(held) / median(copied), "ratio", raw, at_most=1.0),
        Figure("saving_hold_seconds", median(held), "seconds", raw),
        Figure("saving_slower", median(beside) / median(alone), "ratio", {"writing": beside, "alone": alone}),
    ]


def _between(one: Record, other: Record) -> float:
    """Return the seconds from the record of a step to the beginning of the next."""
    return float(other["time"] - other["seconds"] - one["time"])


def _copy_seconds(checkpoint: Path, rounds: int) -> list[float]:
    """Return how long a checkpoint's tensors take to be copied, once for each round."""
    import torch

    torch.set_num_threads(CORES)
    files = sorted(checkpoint.rglob("*.pt"))
    states = [torch.load(file, map_location="cpu", weights_only=False) for file in files]
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        copy = [in_memory(state) for state in states]
        seconds.append(time.perf_counter() - begun)
        del copy
    return seconds


def _keys(work: Path, steps: int, save_steps: int, hidden: int) -> dict[str, Any]:
    tiny, folder = tiny_model(work), work / "larger"
    shutil.copytree(tiny.model, folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": 6, "head_dim": 64}
    config |= {"num_attention_heads": max(1, hidden // 64), "num_key_value_heads": max(1, hidden // 64)}
    assert config["vocab_size"] == VOCABULARY
    assert CONTEXT >= 128
    (folder / "config.json").write_text(json.dumps(config))
    return {
        "pretrainedModelType": "sfft/llama",
        "localModelDir": str(folder),
        "localDataDir": str(tiny.text),
        "localPathPrefix": str(work / "jobs"),
        "name": "saving",
        "deepspeedConfig": '{"zero_optimization": {"stage": 2}}',
        "sfft.from_scratch": True,
        "sfft.bf16": False,
        "sfft.max_length": 128,
        "sfft.per_device_train_batch_size": 4,
        "sfft.max_steps": steps,
        "sfft.save_steps": save_steps,
    }
