"""`sfft_*`: tokens per second of a pretraining job over those of two peers with DeepSpeed, in fp32 and bf16.

All: the same model, two ranks of one thread each over gloo, ZeRO-2, torch's AdamW, clipping, windows [8, 256]
per rank, every position supervised. Ours is the whole product on the embedded cluster (shards read from disk,
loss summed over ranks, metrics, a coordinator that watches); a peer is two plain processes with their batches in
memory: a bare loop (`bare_deepspeed`; the ratio is what all of that costs), and transformers' Trainer
(`trainer_deepspeed`).

The cluster stays up, idle, while the peers run: stopping it at every turn would cost the interleaving.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

from measure import Figure, interleaved, ratio_of_medians
from our_jobs import WARM_UP_STEPS, session, tokens_per_second
from tiny_model import tiny_model

SMOKE = {"rounds": 1, "steps": 8}
RANKS, ROWS, WIDTH = 2, 8, 256


def measure(work: Path, rounds: int = 4, steps: int = 30) -> list[Figure]:
    """All sides do ``steps`` steps, the first of which are not counted."""
    tiny, ours = tiny_model(work), session(workers=RANKS)
    figures = []
    for precision in ("fp32", "bf16"):
        parameters = {
            "pretrainedModelType": "sfft/llama",
            "localModelDir": str(tiny.model),
            "localDataDir": str(tiny.text),
            "sfft.per_device_train_batch_size": ROWS,
            "sfft.max_length": WIDTH,
            "sfft.bf16": precision == "bf16",
            "sfft.max_steps": steps,
        }
        sides = {
            "bare": partial(_peer, "bare_deepspeed.py", tiny.model, precision, steps),
            "trainer": partial(_peer, "trainer_deepspeed.py", tiny.model, precision, steps),
            "ours": partial(tokens_per_second, ours, work, parameters),
        }
        speeds = interleaved(sides, rounds)
        raw = {f"{side}_tokens_per_s": values for side, values in speeds.items()}
        for peer, name, goal in (("bare", "bare_deepspeed", 0.98), ("trainer", "trainer", 1.0)):
            ratio = ratio_of_medians(speeds["ours"], speeds[peer])
            figures.append(Figure(f"sfft_{precision}_over_{name}", ratio, "ratio", raw, at_least=goal))
    return figures


def _peer(file: str, model: Path, precision: str, steps: int) -> float:
    """Run a peer's ranks; return their tokens per second."""
    script = Path(__file__).with_name(file)
    sizes = [ROWS, WIDTH, WARM_UP_STEPS, steps - WARM_UP_STEPS]
    command = [sys.executable, str(script), str(model), precision, *map(str, sizes)]
    port = _free_port()
    ranks = [
        subprocess.Popen(command, env=os.environ | _place(rank, port), stdout=subprocess.PIPE, text=True)
        for rank in range(RANKS)
    ]
    try:
        printed = [rank.communicate()[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert not any(rank.returncode for rank in ranks), f"a rank of {file} failed"
    return float(printed[0].splitlines()[-1])


def _place(rank: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "LOCAL_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
