"""`view_cost`: the share of a training run's CPU time that goes into its metrics and its live view.

A real kernel runs the three cells that a user would write; the job is a fine-tuning by two workers with short
steps (many records, the worst case). Counted, as CPU seconds:

- view: the kernel's thread that follows the job, feeds card and chart and draws the stills, from its first look
  to its last (the kernel notes each thread's CPU clock when the thread ends);
- writer: what rank 0 does to write as many records in as many bunches, done again here on one thread;
- workers: both worker processes, from the first step on (their imports are no training).

Importing matplotlib, once a kernel, is timed by itself (``import_once``) and not part of the share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from measure import Figure
from our_jobs import session
from tiny_model import tiny_model

from byzerllm_magics.cluster.jobs import Job
from byzerllm_trainers.gang import NAMESPACE
from byzerllm_trainers.job_folder import JobFolder, Record
from byzerllm_trainers.worker import FLUSH_SECONDS

SMOKE = {"steps": 12}
WORKERS = 2
NAME = "view-cost"
LOAD = """
%load_ext byzerllm_magics
import threading, time
thread_seconds, run_thread = {}, threading.Thread.run
def run_timed(thread):
    try:
        run_thread(thread)
    finally:
        thread_seconds[thread.name] = time.thread_time()
threading.Thread.run = run_timed
"""
SETUP = f"""%%byzerllm setup
sft
num_gpus={WORKERS}"""
IMPORT_ONCE = """
begun = time.process_time()
import matplotlib.backends.backend_agg, matplotlib.figure, PIL.Image
print(time.process_time() - begun)
"""
REPORT = """
while "byzer-views" not in thread_seconds:
    time.sleep(0.1)
print(thread_seconds["byzer-views"])
"""


def measure(work: Path, steps: int = 160) -> list[Figure]:
    """160 steps of 2 x 8 rows take about 40 s on two cores."""
    tiny = tiny_model(work)
    ours = session(WORKERS)
    keys = {
        "pretrainedModelType": "sft/llama",
        "localModelDir": tiny.model,
        "localDataDir": tiny.rows,
        "localPathPrefix": work / "jobs",
        "name": NAME,
        "sft.max_seq_length": 512,
        "sft.max_steps": steps,
    }
    with _kernel() as client:
        _run_cell(client, LOAD)
        _run_cell(client, SETUP)
        import_once = float(_run_cell(client, IMPORT_ONCE))
        _run_cell(client, "\n".join(["%%byzerllm run", *(f'{key}="{value}"' for key, value in keys.items())]))
        workers = _cpu_seconds_of_workers(ours.job(NAME))
        view = float(_run_cell(client, REPORT))
    records = ours.job(NAME).folder.metrics()
    writer = _cpu_seconds_to_write(records, work / "written-again")
    raw = {
        "view_s": [view],
        "writer_s": [writer],
        "workers_s": [workers],
        "run_s": [records[-1]["time"] - records[0]["time"]],
        "import_once_s": [import_once],
    }
    return [Figure("view_cost", (view + writer) / workers, "share", raw, at_most=0.01)]


@contextmanager
def _kernel() -> Iterator[Any]:
    """Yield the client of a new kernel of this Python; end the kernel afterwards."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _run_cell(client: Any, code: str) -> str:
    """Run a cell to its end; return what it printed."""
    printed = []

    def keep(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(code, output_hook=keep, timeout=300)["content"]
    assert reply["status"] == "ok", "\n".join(reply.get("traceback", printed))
    return "".join(printed)


def _cpu_seconds_of_workers(job: Job) -> float:
    """Follow a job to its end; return the CPU seconds of its workers between their first and last sight training."""
    import psutil

    processes: list[psutil.Process] = []
    seen: list[list[float]] = []

    def look() -> None:
        if not processes and job.state == "running":
            processes.extend(psutil.Process(pid) for pid in _worker_ids())
            seen.extend([] for _ in processes)
        for process, seconds in zip(processes, seen, strict=True):
            with suppress(psutil.NoSuchProcess):  # the job's last look may come after the workers' end
                times = process.cpu_times()
                seconds.append(times.user + times.system)

    job.wait(look)
    assert len(seen) == WORKERS, "the workers were not seen"
    return sum(seconds[-1] - seconds[0] for seconds in seen)


def _worker_ids() -> list[int]:
    """Ask the gang's actors for their process ids."""
    import ray

    workers = [ray.get_actor(f"W-{rank}-{NAME}", NAMESPACE) for rank in range(WORKERS)]
    ids: list[int] = ray.get([worker.__ray_call__.remote(lambda _: os.getpid()) for worker in workers])
    return ids


def _cpu_seconds_to_write(records: list[Record], root: Path) -> float:
    """Write a job's records again, in bunches as its writer did; return the CPU seconds."""
    folder = JobFolder(root)
    folder.create({})
    attempt = folder.take_lease("bench")
    bunches = [list(bunch) for _, bunch in groupby(records, key=lambda record: record["time"] // FLUSH_SECONDS)]
    begun = time.thread_time()
    for bunch in bunches:
        folder.check_lease(attempt)
        folder.append("metrics.jsonl", bunch)
    return time.thread_time() - begun
