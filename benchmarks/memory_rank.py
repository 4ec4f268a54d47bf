"""One rank of a training job, without Ray: prints the most bytes that its process held for it, and held before it.

usage: memory_rank.py JOB_FOLDER RANK PORT

It does what a worker does: imports, joins the gang (that footprint is not the job's and is taken off), loads the
model, trains to the last step and commits a checkpoint. Run it with `memory.ALLOCATOR` in its environment, so that
freed memory goes back at once and counts once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from byzerllm_trainers.job_folder import JobFolder, Record
from byzerllm_trainers.job_request import read_request


def main(root: str, index: int, port: int) -> None:
    """Train a prepared job as rank ``index``; print the peak over the process before, and that, in bytes."""
    import torch

    from byzerllm_trainers import loop, recipe
    from byzerllm_trainers.engine import Rank, join_group
    from byzerllm_trainers.processes import Place

    torch.set_num_threads(1)
    folder = JobFolder(root)
    job = recipe.Job(folder, read_request(folder))
    rank = Rank(index, job.request.workers)
    join_group(rank, [Place("127.0.0.1", port)] * rank.world, gpu=False)
    if job.request.train.fine_tunes:
        import peft  # noqa: F401
    method = recipe.find(job.request.train.method)
    plan = method.plan(job)
    before = _held("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    model = method.model(job)
    total = recipe.total_steps(method, job, plan)
    objective = method.objective(job)
    loop.train(model, plan, job.request.loop, total, folder=folder, rank=rank, observer=_Nobody(), objective=objective)
    print(_held("VmHWM") - before, before)


def _held(name: str) -> int:
    """Return a number of /proc/self/status in bytes."""
    [line] = [line for line in Path("/proc/self/status").read_text("ascii").splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024


class _Nobody:
    """Is told how it goes, and does nothing."""

    def record(self, step: Record) -> None: ...

    def get_on(self) -> None: ...

    def flush(self) -> None: ...

    def fence(self) -> None: ...

    def saved(self, step: int) -> None: ...

    def note(self, message: str) -> None: ...

    def sampled(self, answers: Sequence[Record]) -> None: ...

    def should_stop(self) -> bool:
        return False


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
