"""`sft_*_over_*`: real tokens per second of fine-tuning jobs over those of TRL and of bare loops, in fp32 and bf16.

Ours is the whole product, as in `sft_vs_bare_loop`, in its two ways to fill a batch with about 4,096 tokens: 50 rows
of similar length, and conversations packed into [8, 512]. TRL (`trl_loop`) is run as users run it (8 padded rows; its
packing), and tuned (50 rows, grouped by length). The bare loop (`bare_loop`) has full rows of random ids in memory,
[8, 512], or pads 50 rows of our lengths, grouped. All use the same model, LoRA (rank 16, alpha 32, every linear
layer; no dropout) and threads; only unpadded tokens count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import Figure, interleaved, ratio_of_medians
from our_jobs import CORES, session, tokens_per_second
from tiny_model import TinyModel, tiny_model

from byzerllm_magics import Session

SMOKE = {"rounds": 1, "steps": 7, "peer_steps": 1}
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
OURS: dict[str, dict[str, object]] = {
    "grouped": {"sft.per_device_train_batch_size": 50},
    "packed": {"sft.per_device_train_batch_size": 8, "sft.packing": True},
}
GOALS = {
    ("packed", "trl_padded"): 3.5,
    ("packed", "trl_packed"): 3.5,
    ("grouped", "trl_padded"): 3.5,
    ("grouped", "trl_packed"): 3.5,
    ("grouped", "trl_tuned"): 1.1,
    ("grouped", "bare_grouped"): 1.1,
    ("packed", "bare_8x512"): 0.95,
}


def measure(work: Path, rounds: int = 2, steps: int = 80, peer_steps: int = 12) -> list[Figure]:
    """80 steps of 4,096 tokens are two epochs."""
    tiny, ours = tiny_model(work), session(workers=1)
    figures = []
    for precision, dtype in DTYPES.items():
        sides: dict[str, Callable[[], dict[str, float]]] = {}
        for name, keys in OURS.items():
            parameters = _parameters(tiny, precision, steps) | keys
            sides[name] = partial(_ours, ours, work, parameters)
        for mode in ("padded", "packed", "tuned"):
            # steps of 8 padded rows are a sixth as long
            count = peer_steps * (4 if mode == "padded" else 1)
            sides[f"trl_{mode}"] = partial(_trl, tiny, mode, dtype, count)
        sides["bare"] = partial(_bare, tiny, dtype, peer_steps)
        results = interleaved(sides, rounds)
        bare = results.pop("bare")
        speeds = {name: [each["real"] for each in side] for name, side in results.items()}
        speeds |= {f"bare_{shape}": [each[shape] for each in bare] for shape in ("8x512", "grouped")}
        figures += [_figure(precision, own, peer, speeds, goal) for (own, peer), goal in GOALS.items()]
    return figures


def _parameters(tiny: TinyModel, precision: str, steps: int) -> dict[str, object]:
    return {
        "pretrainedModelType": "sft/llama",
        "localModelDir": str(tiny.model),
        "localDataDir": str(tiny.rows),
        "sft.max_seq_length": 512,
        "sft.lora_rank": 16,
        "sft.lora_alpha": 32,
        "sft.lora_dropout": 0,
        "sft.bf16": precision == "bf16",
        "sft.max_steps": steps,
    }


def _figure(precision: str, own: str, peer: str, speeds: dict[str, list[float]], goal: float) -> Figure:
    raw = {f"ours_{own}": speeds[own], peer: speeds[peer]}
    name = f"sft_{precision}_{own}_over_{peer}"
    return Figure(name, ratio_of_medians(speeds[own], speeds[peer]), "ratio", raw, at_least=goal)


def _ours(ours: Session, work: Path, parameters: dict[str, object]) -> dict[str, float]:
    return {"real": tokens_per_second(ours, work, parameters)}


def _trl(tiny: TinyModel, mode: str, dtype: str, steps: int) -> dict[str, float]:
    return _peer("trl_loop.py", str(tiny.model), str(tiny.rows), mode, dtype, str(CORES), str(steps))


def _bare(tiny: TinyModel, dtype: str, steps: int) -> dict[str, float]:
    return _peer("bare_loop.py", str(tiny.model), dtype, str(CORES), str(steps), str(tiny.rows))


def _peer(script: str, *arguments: str) -> dict[str, float]:
    """Run a peer in a process of its own; return what it printed last."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": str(CORES)},
        stdout=subprocess.PIPE,
        check=True,
    )
    speeds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return speeds
