"""One step as ``metrics.jsonl`` has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .flops import ModelFlops, peak_flops
from .job_folder import JobFolder, Record
from .packing import IGNORED, Batch, Step

if TYPE_CHECKING:
    from .engine import Rank


class StepRecord:
    """Describes steps.

    Args:
        flops: What a token costs.
        half: Whether the run computes in bf16 or fp16.
        extra_forwards: Those of a batch that have no backward.
        rank: This process.
        earlier: Records of the steps before, when a run goes on.
    """

    def __init__(
        self, flops: ModelFlops, *, half: bool, extra_forwards: int, rank: Rank, earlier: Iterable[Record]
    ) -> None:
        self._flops, self._extra_forwards, self._peak, self._rank = flops, extra_forwards, peak_flops(half), rank
        self._seen = sum(record["tokens"] for record in earlier)

    def __call__(self, numbers: Record, done: Step, seconds: Mapping[str, float]) -> Record:
        """Return a step's record: its numbers, what it did, how long that took.

        ``tokens`` are the step's over all ranks, ``tokens_seen`` the run's so far; ``memory`` is the most bytes that
        rank 0's device (without one: its process) has held; ``mfu``, 0 to 1, only where the device's peak is known.
        """
        self._seen += done.tokens
        speed = done.tokens / seconds["seconds"]
        record = {
            **numbers,
            "tokens": done.tokens,
            "tokens_seen": self._seen,
            "tokens_per_second": round(speed, 1),
            "tokens_per_second_per_device": round(speed / self._rank.world, 1),
            "memory": memory(),
            **seconds,
        }
        if self._peak is not None:
            flops = self._flops_of(done)
            record["mfu"] = round(flops / seconds["seconds"] / self._rank.world / self._peak, 4)
        return record

    def _flops_of(self, done: Step) -> float:
        """Return what a step took over all ranks, of which this one's batches stand for the others'."""
        width = float(np.mean([batch.input_ids.shape[1] for batch in done.batches]))
        supervised = sum(int((batch.labels != IGNORED).sum()) for batch in done.batches) * self._rank.world
        return self._flops.of_step(done.tokens, supervised, width, self._extra_forwards)


def memory() -> int:
    """Return the most bytes that this process' GPU has held; without a GPU, what the process holds now."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import psutil

    return int(psutil.Process().memory_info().rss)


def keep_batches(folder: JobFolder, step: int, rank: Rank, batches: Sequence[Batch]) -> str:
    """Store a rank's batches of a step for inspection, and return the file's path.

    `numpy.load` reads it: ``input_ids_K`` and ``labels_K`` of each micro-batch K, ``[rows, width]``.
    """
    path = folder.logs / f"batches-step-{step}-rank-{rank.index}.npz"
    arrays: dict[str, Any] = {f"input_ids_{k}": batch.input_ids for k, batch in enumerate(batches)}
    np.savez_compressed(path, **arrays | {f"labels_{k}": batch.labels for k, batch in enumerate(batches)})
    return str(path)
