"""Writing checkpoints behind the training loop: begun after a step, committed when every rank has written its part."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .checkpoint import STATE, best_checkpoint, committed, random_file
from .job_folder import JobFolder, Record, read_json, write_json
from .writer import BackgroundWriter


class Saver:
    """Writes a run's checkpoints, one at a time. Every rank has one and calls its methods after the same steps.

    Args:
        engine: The DeepSpeed engine; from now on it writes from a thread.
        folder: The job's folder, visible to all ranks.
        rank: This process's rank.
        keep: How many committed checkpoints remain.
        best_by: The checkpoint that is best by this metric remains besides.
        fence: Called on rank 0 before anything that others may have written is removed, and before the commit; it
            raises if this attempt may not write any more.
        saved: Called on rank 0 with the step of a checkpoint that was committed.
        get_on: Called now and then while files are waited for.
    """

    def __init__(
        self,
        engine: Any,
        folder: JobFolder,
        rank: int,
        *,
        keep: int,
        best_by: str | None = None,
        fence: Callable[[], None] = lambda: None,
        saved: Callable[[int], None] = lambda _step: None,
        get_on: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._folder, self._rank = engine, folder, rank
        self._keep, self._best_by, self._fence, self._saved = keep, best_by, fence, saved
        self._get_on = get_on
        self._writer = BackgroundWriter(engine.checkpoint_engine)
        engine.checkpoint_engine = self._writer
        self._step: int | None = None
        self._metrics: dict[str, float] = {}

    @property
    def is_open(self) -> bool:
        """Whether a checkpoint was begun and not committed yet."""
        return self._step is not None

    def begin(self, step: int, metrics: Mapping[str, float]) -> None:
        """Copy engine and random state after ``step`` optimizer steps, and begin to write them.

        Args:
            step: Optimizer steps done.
            metrics: What the evaluation of this step found.
        """
        import torch.distributed as dist

        self.finish()
        target = self._folder.checkpoints / f"step-{step}"
        if self._rank == 0:
            self._fence()
            shutil.rmtree(target, ignore_errors=True)  # a torn one of an earlier attempt
        dist.barrier()
        self._engine.save_checkpoint(
            str(target), tag=STATE, client_state={"step": step}, save_latest=False, exclude_frozen_parameters=True
        )
        self._writer.save(_random_state(), random_file(target, self._rank))
        self._writer.start(_index(target, self._rank))
        self._step, self._metrics = step, dict(metrics)

    def is_writing(self) -> bool:
        """Whether this rank still writes.

        Raises:
            OSError: the disk refused the files.
        """
        writing = self._writer.is_writing()  # before the check: it may fail in between
        self._writer.check()
        return writing

    def finish(self) -> None:
        """Wait until every rank has written what was begun, and commit it. Raises as `is_writing`."""
        import torch.distributed as dist

        if self._step is None:
            return
        self._writer.wait(self._get_on)
        dist.barrier()
        self.commit()
        dist.barrier()

    def commit(self) -> None:
        """Make what was begun a checkpoint, and drop old ones: when no rank writes any more."""
        import torch.distributed as dist

        step, self._step = self._step, None
        assert step is not None, "begin() comes before commit()"
        if self._rank != 0:
            return
        target = self._folder.checkpoints / f"step-{step}"
        files: Record = {}
        for rank in range(dist.get_world_size()):
            index = _index(target, rank)
            files |= read_json(index)
            index.unlink()
        self._fence()
        write_json(target / "manifest.json", {"step": step, "metrics": self._metrics, "files": files})
        best = best_checkpoint(self._folder, self._best_by) if self._best_by else None
        for old in committed(self._folder)[: -self._keep]:
            if old != best:
                (old / "manifest.json").unlink()  # half removed, it is none
                shutil.rmtree(old)
        self._saved(step)


def _index(checkpoint: Path, rank: int) -> Path:
    """Where a rank names the files that it has written."""
    return checkpoint / f"files-{rank}.json"


def _random_state() -> dict[str, Any]:
    import torch

    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state
