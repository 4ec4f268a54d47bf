"""`sft_*`: real tokens per second of a fine-tuning job over those of a bare PyTorch loop, in fp32 and bf16.

Ours is the whole product: 2,000 rows of skewed lengths in a job folder, tokenised, batched, trained by one
worker of a gang on the embedded cluster, clipped, recorded. The peer (`bare_loop`) has full rows of random ids
in memory and nothing else to do: at [8, 512], the longest rows that ours may have, it is the practical limit of
the machine, and the goal applies to that; [8, 64] is near our narrow batches and stands beside it. Both use the
same model, LoRA (rank 16, alpha 32, every linear layer, no dropout), rows a step and threads. Only unpadded
tokens count for ours, all for the peer. What works for us: we compute logits at supervised positions only.

The cluster stays up, idle, while the peer runs: stopping it at every turn would cost the interleaving.
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
from tiny_model import tiny_model

from byzerllm_magics import Session

SMOKE = {"rounds": 1, "steps": 8, "peer_steps": 1}
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def measure(work: Path, rounds: int = 2, steps: int = 250, peer_steps: int = 8) -> list[Figure]:
    """250 steps of 8 rows are one epoch; 8 steps of the peer are 33 k tokens of each shape."""
    tiny, ours = tiny_model(work), session(workers=1)
    figures = []
    for precision in DTYPES:
        parameters = {
            "pretrainedModelType": "sft/llama",
            "localModelDir": str(tiny.model),
            "localDataDir": str(tiny.rows),
            "sft.per_device_train_batch_size": 8,
            "sft.max_seq_length": 512,
            "sft.lora_rank": 16,
            "sft.lora_alpha": 32,
            "sft.lora_dropout": 0,
            "sft.bf16": precision == "bf16",
            "sft.max_steps": steps,
        }
        sides: dict[str, Callable[[], dict[str, float]]] = {
            "bare": partial(_bare, tiny.model, precision, peer_steps),
            "ours": partial(_ours, ours, work, parameters),
        }
        results = interleaved(sides, rounds)
        figures += [_figure(precision, "8x512", results, at_least=0.7), _figure(precision, "8x64", results)]
    return figures


def _figure(
    precision: str, shape: str, results: dict[str, list[dict[str, float]]], at_least: float | None = None
) -> Figure:
    ours = [speeds["real"] for speeds in results["ours"]]
    bare = [speeds[shape] for speeds in results["bare"]]
    raw = {"ours_tokens_per_s": ours, "bare_tokens_per_s": bare}
    return Figure(f"sft_{precision}_over_bare_{shape}", ratio_of_medians(ours, bare), "ratio", raw, at_least=at_least)


def _ours(ours: Session, work: Path, parameters: dict[str, object]) -> dict[str, float]:
    return {"real": tokens_per_second(ours, work, parameters)}


def _bare(model: Path, precision: str, steps: int) -> dict[str, float]:
    """Run the bare loop in a process of its own; return its tokens per second by shape."""
    script = Path(__file__).with_name("bare_loop.py")
    done = subprocess.run(
        [sys.executable, str(script), str(model), DTYPES[precision], str(CORES), str(steps)],
        env=os.environ | {"OMP_NUM_THREADS": str(CORES)},
        stdout=subprocess.PIPE,
        check=True,
    )
    speeds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return speeds
