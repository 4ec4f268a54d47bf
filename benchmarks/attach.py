"""`attach`: how long a notebook waits for a job of a million steps.

A job's folder is made with a record a step, of the same columns as a real one (400 MB). A real kernel that has loaded
the extension runs ``%byzerllm attach FOLDER``: once for a job that has ended, once for one that still runs, which the
cell sees from its events and from its cluster's port, where this process listens. Measured until the cell is done;
the first message with the view comes before that. A new kernel each time; beside it, the kernel's memory then.
"""

from __future__ import annotations

import json
import math
import random
import socket
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from jupyter_client import KernelManager
from measure import Figure

SMOKE = {"steps": 1000, "rounds": 1}
SECONDS = 120


def measure(work: Path, steps: int = 1_000_000, rounds: int = 5) -> list[Figure]:
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        address = f"127.0.0.1:{cluster.getsockname()[1]}"
        jobs = {name: _job(work / name, steps, address) for name in ("ended", "running")}
        _append(jobs["ended"] / "events.jsonl", {"event": "finished", "steps": steps, "seconds": 1.0})
        found = [(name, *_attach(folder)) for _ in range(rounds) for name, folder in jobs.items()]
    seconds = {name: [each for side, each, _ in found if side == name] for name in jobs}
    memory = {name: [each for side, _, each in found if side == name] for name in jobs}
    return [
        Figure("attach_ended", median(seconds["ended"]), "seconds", seconds, at_most=3.0),
        Figure("attach_running", median(seconds["running"]), "seconds", seconds, at_most=3.0),
        Figure("attach_memory", max(memory["running"]), "MiB", memory),
    ]


def _job(folder: Path, steps: int, cluster: str) -> Path:
    """Make the folder of a job that has so many steps."""
    for name in ("data", "checkpoints", "logs", "leases"):
        (folder / name).mkdir(parents=True)
    (folder / "leases" / "1").write_text("bench")
    keys = {"pretrainedModelType": "sfft/llama", "localModelDir": "model"}
    request = {"parameters": keys, "owner": "bench", "workers": 2, "gpu": False, "driven": False}
    (folder / "job.json").write_text(json.dumps(request | {"cpus_per_worker": 1, "threads_per_worker": 1}))
    (folder / "lease.json").write_text(json.dumps({"attempt": 1, "owner": "bench", "cluster": cluster}))
    _append(folder / "events.jsonl", {"event": "running", "total_steps": 2 * steps})
    chance = random.Random(0)
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            file.write(json.dumps(_record(step, chance)) + "\n")
    return folder


def _record(step: int, chance: random.Random) -> dict[str, float]:
    """Return what a step's record holds (see `byzerllm_trainers.step_record`)."""
    return {
        "attempt": 1,
        "time": 1.7e9 + step,
        "step": step,
        "loss": round(8 * math.exp(-step / 2e5) + chance.random(), 6),
        "learning_rate": 0.001,
        "grad_norm": round(chance.random(), 6),
        "tokens": 4096,
        "tokens_seen": 4096 * step,
        "tokens_per_second": round(7000 + 100 * chance.random(), 1),
        "tokens_per_second_per_device": round(3500 + 50 * chance.random(), 1),
        "memory": 504537088,
        **dict.fromkeys(("seconds", "data_seconds", "forward_seconds"), 0.02334),
        **dict.fromkeys(("backward_seconds", "optimizer_seconds"), 0.01147),
    }


def _append(path: Path, event: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time.time(), "attempt": 1, **event}) + "\n")


def _attach(folder: Path) -> tuple[float, float]:
    """Attach in a new kernel; return the seconds until the cell is done, and the kernel's MiB then."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=SECONDS)
        for code in ("%load_ext byzerllm_magics", f"%byzerllm attach {folder}"):
            begun = time.perf_counter()
            reply = client.execute_interactive(code, timeout=SECONDS, output_hook=lambda _message: None)
            assert reply["content"]["status"] == "ok", reply["content"]
        seconds = time.perf_counter() - begun
        return seconds, psutil.Process(manager.provisioner.process.pid).memory_info().rss / 2**20
    finally:
        manager.shutdown_kernel(now=True)
