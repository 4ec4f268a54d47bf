"""Going on from a checkpoint: this job's newest whole one, the best one, or another job's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .checkpoint import (
    STATE,
    best_first,
    committed,
    damage,
    find_checkpoint,
    random_file,
    ranks_of,
    step_of,
    sweep,
)
from .job_folder import JobFolder
from .reshaping import load_reshaped

UNIVERSAL = ".universal"
"""Beside a job's checkpoints: one that is dealt to another number of workers."""


def load_checkpoint(
    engine: Any, folder: JobFolder, rank: int, tell: Callable[[str], None], fence: Callable[[], None]
) -> int:
    """Restore the newest whole checkpoint into ``engine`` and return its step; 0 when there is none.

    Rank 0 verifies checksums and tells the others which one to load, so that all load the same.

    Args:
        engine: The DeepSpeed engine; every rank calls this.
        folder: The job's folder, visible to all ranks.
        rank: This process's rank.
        tell: Called on rank 0 for each damaged one with a sentence for the user.
        fence: Called on rank 0 before damaged or torn ones are removed; see `Saver`.
    """
    path = _agreed(_newest_whole(folder, tell, fence) if rank == 0 else None)
    return 0 if path is None else _restore(engine, path, folder, rank)


def resume_elsewhere(engine: Any, place: str, folder: JobFolder, rank: int) -> int:
    """Restore another job's checkpoint (see `find_checkpoint`) into ``engine`` and return its step.

    Raises:
        ByzerError: there is none, or it is of another model.
    """
    path = _agreed(find_checkpoint(place) if rank == 0 else None)
    assert path is not None, "rank 0 found it or raised"
    try:
        return _restore(engine, path, folder, rank)
    except (RuntimeError, ValueError) as error:  # shapes, or the optimizer's groups
        reason = str(error).strip().splitlines()
        raise ByzerError(
            f"this checkpoint does not fit the model: {reason[min(1, len(reason) - 1)].strip()}",
            where=str(path),
            do="train the same model with the same finetuning_type, lora_rank, optim, precision and ZeRO stage",
        ) from error


def restore_best(
    engine: Any, folder: JobFolder, metric: str, rank: int, *, step: int, tell: Callable[[str], None]
) -> int:
    """Restore the whole checkpoint that is best by ``metric`` and return its step; every rank calls this.

    Args:
        engine: The DeepSpeed engine.
        folder: The job's.
        metric: A key of `evaluation.HIGHER_IS_BETTER`.
        rank: This process's rank.
        step: That of the weights which the engine holds: they stay when no checkpoint is whole.
        tell: Called on rank 0 for each damaged one with a sentence for the user.
    """
    path = _agreed(_best_whole(folder, metric, tell) if rank == 0 else None)
    return step if path is None else _restore(engine, path, folder, rank)


def _best_whole(folder: JobFolder, metric: str, tell: Callable[[str], None]) -> Path | None:
    for path in best_first(folder, metric):
        if not (found := damage(path)):
            return path
        tell(f"checkpoint {path.name}, the best by {metric}, is damaged and not used: {found}")
    return None


def _newest_whole(folder: JobFolder, tell: Callable[[str], None], fence: Callable[[], None]) -> Path | None:
    """Return the newest whole checkpoint; damaged ones before it are put aside, torn ones removed.

    Otherwise a damaged one would count among those kept, and push the whole ones out.
    """
    fence()
    sweep(folder)
    for path in reversed(committed(folder)):
        if not (found := damage(path)):
            return path
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        tell(f"checkpoint {path.name} is damaged and not used, {found}: it is now {aside.name}")
    return None


def _restore(engine: Any, checkpoint: Path, folder: JobFolder, rank: int) -> int:
    """Load a checkpoint's weights, optimizer and random state; return its step."""
    import torch
    import torch.distributed as dist

    if ranks_of(checkpoint) == dist.get_world_size():
        engine.load_checkpoint(str(checkpoint), tag=STATE, load_module_strict=False)
        _restore_random_state(torch.load(random_file(checkpoint, rank), weights_only=True))
    else:  # other ranks have other random states: each goes on with that of its seed
        load_reshaped(engine, checkpoint, folder.checkpoints / UNIVERSAL, rank)
    return step_of(checkpoint)


def _agreed(choice: Path | None) -> Path | None:
    """Return rank 0's choice on every rank."""
    import torch.distributed as dist

    message = [None if choice is None else str(choice)]
    dist.broadcast_object_list(message, src=0)
    return None if message[0] is None else Path(message[0])


def _restore_random_state(state: dict[str, Any]) -> None:
    import torch

    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
