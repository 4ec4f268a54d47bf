"""A checkpoint for another number of workers: DeepSpeed's universal format, made of it when it is needed."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .checkpoint import STATE


def load_reshaped(engine: Any, checkpoint: Path, scratch: Path, rank: int) -> None:
    """Load weights and optimizer state that another number of ranks has saved; every rank calls this.

    Without ZeRO every rank has the whole state. With it, rank 0 joins the parts into DeepSpeed's universal format
    in ``scratch``, all load their own part of that, and it is removed.

    Args:
        engine: The DeepSpeed engine.
        checkpoint: A whole checkpoint, perhaps another job's.
        scratch: A folder for the universal format, of this job alone; it is removed afterwards.
        rank: This process's rank.
    """
    import torch.distributed as dist

    if engine.zero_optimization_stage() == 0:
        engine.load_checkpoint(str(checkpoint), tag=STATE, load_module_strict=False)
        return
    if rank == 0:
        shutil.rmtree(scratch, ignore_errors=True)
        _make_universal(checkpoint / STATE, scratch / STATE)
    dist.barrier()
    groups = [
        {key: value for key, value in group.items() if key != "params"} for group in engine.optimizer.param_groups
    ]
    with _reading_universal(engine):
        engine.load_checkpoint(str(scratch), tag=STATE, load_module_strict=False)
    for group, numbers in zip(engine.optimizer.param_groups, groups, strict=True):
        group.update(numbers)  # stage 3 gives all groups the first one's, weight decay included,
    for state in engine.optimizer.optimizer.state.values():  # and one counter of steps, which each then counts on
        state["step"] = copy.deepcopy(state["step"])
    dist.barrier()
    if rank == 0:
        shutil.rmtree(scratch)


def _make_universal(source: Path, target: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    target.mkdir(parents=True)
    options = Namespace(
        input_folder=str(source),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,  # ours are saved without the description of tensor-parallel parts
    )
    with contextlib.ExitStack() as quiet:  # it prints a progress bar for each of its stages
        nowhere = quiet.enter_context(Path(os.devnull).open("w"))
        quiet.enter_context(contextlib.redirect_stdout(nowhere))
        quiet.enter_context(contextlib.redirect_stderr(nowhere))
        ds_to_universal.main(options)


@contextmanager
def _reading_universal(engine: Any) -> Iterator[None]:
    """Have the engine expect the universal format: it is a setting of the whole run in DeepSpeed."""
    before = engine._config.load_universal_checkpoint
    engine._config.load_universal_checkpoint = True
    try:
        yield
    finally:
        engine._config.load_universal_checkpoint = before
