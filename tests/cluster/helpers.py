"""How the cluster tests start jobs and processes, and what they look at."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byzerllm_magics.cluster.jobs import Job
from byzerllm_trainers.gang import NAMESPACE
from byzerllm_trainers.job_folder import Record
from tests.tiny import texts

STEPS = 40


@dataclass(frozen=True)
class Observed:
    """A finished job, and what the cluster showed while it ran."""

    job: Job
    row: Record
    actors: set[str]
    namespaces: set[str]


def corpus_folder(folder: Path) -> Path:
    """Write the tiny documents as .txt files."""
    for number, text in enumerate(texts(64).text):
        (folder / f"{number:03}.txt").write_text(text * 8, encoding="utf-8")
    return folder


def pretraining(
    model: Path, corpus: Path, prefix: Path, *, name: str, stage: int, rows: int = 4, steps: int = STEPS
) -> dict[str, str]:
    """Keys of a small pretraining job in fp32 that saves a checkpoint every tenth step."""
    return {
        "pretrainedModelType": "sfft/llama",
        "localModelDir": str(model),
        "localDataDir": str(corpus),
        "localPathPrefix": str(prefix),
        "name": name,
        "deepspeedConfig": json.dumps({"zero_optimization": {"stage": stage}, "bf16": {"enabled": False}}),
        "sfft.int.max_length": "64",
        "sfft.int.per_device_train_batch_size": str(rows),
        "sfft.int.max_steps": str(steps),
        "sfft.int.save_steps": "10",
        "sfft.float.learning_rate": "3e-3",
    }


def observed(session: Any, parameters: dict[str, str]) -> Observed:
    """Run a job to its end and note the named actors of its namespaces meanwhile."""
    from ray.util import list_named_actors

    job = session.run(parameters)
    seen: list[dict[str, str]] = []
    row = job.wait(lambda: seen.extend(a for a in list_named_actors(all_namespaces=True) if job.name in a["name"]))
    return Observed(job, row, {a["name"] for a in seen}, {a["namespace"] for a in seen})


def actor_lives(name: str) -> bool:
    """Whether an actor of this name is on the cluster."""
    import ray

    try:
        ray.get_actor(name, NAMESPACE)
    except ValueError:
        return False
    return True


def live_groups() -> list[dict[str, Any]]:
    """Placement groups that hold or wait for resources."""
    from ray.util import placement_group_table

    return [group for group in placement_group_table().values() if group["state"] != "REMOVED"]


def eventually(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until ``holds()`` is true and return it; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.05)
    return found


def worker_pid(name: str) -> int:
    """Process id of a named actor."""
    import ray
    from ray.util.state import list_actors

    address = ray.get_runtime_context().gcs_address  # another cluster may run on this machine
    alive = [("name", "=", name), ("state", "=", "ALIVE")]
    (actor,) = eventually(lambda: list_actors(address, filters=alive), 20)  # its log may be there before Ray knows it
    return int(actor.pid)


def event_names(job: Job) -> list[str]:
    """The job's events so far."""
    return [event["event"] for event in job.folder.events()]


def sha256(path: Path) -> str:
    """Digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def python(code: str, environment: dict[str, str], seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process with exactly this environment."""
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )


def free_cpus() -> float:
    """CPUs of the cluster that nothing has reserved."""
    import ray

    return float(ray.available_resources().get("CPU", 0.0))
