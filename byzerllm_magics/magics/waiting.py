"""Waiting for a job: the prompt is back when it ends, or at once when interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.checkpoint import committed
from byzerllm_trainers.job_folder import JobFolder, ending_of

from ..live import WATCHER
from ..paths import shown

if TYPE_CHECKING:
    from byzerllm_trainers.job_folder import Record

    from ..cluster.jobs import Job


def wait_for(job: Job) -> Record | None:
    """Wait, and print one line: how it ended, or that it goes on.

    Raises:
        ByzerError: the job failed.
    """
    try:
        row = job.wait(tell=lambda _: None)  # its card does
    except KeyboardInterrupt:
        print(f'Not waiting any more: job {job.name} runs on. "%byzerllm stop {job.name}" ends it.')
        return None
    except ByzerError:
        WATCHER.settle()
        raise
    WATCHER.settle()
    losses = f", loss {row['first_loss']:.4g} → {row['last_loss']:.4g}" if row["last_loss"] is not None else ""
    took = f" in {row['seconds']:.1f} s" if row["seconds"] else ""
    steps = f"{row['steps']} steps"
    events = JobFolder(row["folder"]).events()
    ending = ending_of(events) or {"steps": row["steps"]}
    if row["status"] == "stopped" and ending["steps"] < row["steps"]:
        steps += f", the last {row['steps'] - ending['steps']} of them not in a checkpoint"
    best = ending.get("model_step", ending["steps"]) != ending["steps"]
    of_step = f" of step {ending['model_step']}, the best" if best else ""
    model = f" Model{of_step}: {shown(row['model'])}" if row["model"] else ""
    saved = row["status"] == "stopped" and committed(job.folder)
    kept = f" Its checkpoints: {shown(job.folder.checkpoints)}" if saved else ""
    print(f"Job {job.name} {row['status']}: {steps}{took}{losses}.{model}{kept}")
    for note in dict.fromkeys(event["message"] for event in events if event["event"] == "note"):
        print(f"Note: {note}")
    return row
