"""What a job's processes write into its folder."""

from typing import Any

from byzerllm_trainers.job_folder import JobFolder


def tell(folder: JobFolder, name: str, attempt: int = 1, time: float = 100.0, **details: Any) -> None:
    folder.append("events.jsonl", [{"event": name, "time": time, "attempt": attempt, **details}])


def train(folder: JobFolder, steps: range, attempt: int = 1, loss: float = 1.0) -> None:
    series = {"learning_rate": 1e-4, "grad_norm": 0.5, "tokens_per_second": 99.0, "tokens": 10, "seconds": 0.1}
    folder.append("metrics.jsonl", [{"attempt": attempt, "step": s, "loss": loss, **series} for s in steps])
