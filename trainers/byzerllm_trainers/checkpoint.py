"""Commit, exact resume, and export of the result.

A checkpoint is a folder ``checkpoints/step-N`` of DeepSpeed's files and one ``random-RANK.pt`` a rank. Its
``manifest.json`` (sizes and SHA-256 of every file) is written last, after a barrier: a folder without a valid
manifest does not exist.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .evaluation import HIGHER_IS_BETTER
from .job_folder import JobFolder, read_json, write_json

if TYPE_CHECKING:
    from torch import nn

TAG = "state"
"""DeepSpeed's folder inside a checkpoint."""


def save_checkpoint(
    engine: Any,
    folder: JobFolder,
    step: int,
    rank: int,
    *,
    keep: int,
    metrics: Mapping[str, float] | None = None,
    best_by: str | None = None,
    fence: Callable[[], None] = lambda: None,
) -> None:
    """Save engine and random state after ``step`` optimizer steps; rank 0 commits and drops old ones.

    Args:
        engine: The DeepSpeed engine; every rank calls this.
        folder: The job's folder, visible to all ranks.
        step: Optimizer steps done.
        rank: This process's rank.
        keep: How many committed checkpoints remain.
        metrics: What the evaluation of this step found.
        best_by: The checkpoint that is best by this metric remains besides.
        fence: Called on rank 0 before anything that others may have written is removed, and before the commit; it
            raises if this attempt may not write any more.
    """
    import torch
    import torch.distributed as dist

    target = folder.checkpoints / f"step-{step}"
    if rank == 0:
        fence()
    if rank == 0 and target.exists():
        shutil.rmtree(target)  # a torn one of an earlier attempt
    dist.barrier()
    engine.save_checkpoint(str(target), tag=TAG, client_state={"step": step}, exclude_frozen_parameters=True)
    torch.save(_random_state(), target / f"random-{rank}.pt")
    dist.barrier()
    if rank == 0:
        digests = _digests(target)
        fence()
        write_json(target / "manifest.json", {"step": step, "metrics": dict(metrics or {}), "files": digests})
        best = best_checkpoint(folder, best_by) if best_by else None
        for old in committed(folder)[:-keep]:
            if old != best:
                shutil.rmtree(old)


def load_checkpoint(engine: Any, folder: JobFolder, rank: int) -> int:
    """Restore the newest whole checkpoint into ``engine`` and return its step; 0 when there is none.

    Rank 0 verifies checksums and tells the others which one to load, so that all load the same.
    """
    path = _agreed(_newest_whole(folder) if rank == 0 else None)
    return 0 if path is None else _restore(engine, path, rank)


def resume_elsewhere(engine: Any, place: str, rank: int) -> int:
    """Restore another job's checkpoint (see `find_checkpoint`) into ``engine`` and return its step.

    Raises:
        ByzerError: there is none, or it is of another number of workers or another model.
    """
    import torch.distributed as dist

    path = _agreed(find_checkpoint(place) if rank == 0 else None)
    assert path is not None, "rank 0 found it or raised"
    ranks = len(list(path.glob("random-*.pt")))
    if ranks != dist.get_world_size():
        raise ByzerError(
            f"this checkpoint is of {ranks} workers, and this job has {dist.get_world_size()}",
            where=str(path),
            do=f"set num_gpus={ranks} (setup), or train on from its model folder: localModelDir",
        )
    try:
        return _restore(engine, path, rank)
    except (RuntimeError, ValueError) as error:  # shapes, or the optimizer's groups
        reason = str(error).strip().splitlines()
        raise ByzerError(
            f"this checkpoint does not fit the model: {reason[min(1, len(reason) - 1)].strip()}",
            where=str(path),
            do="train the same model with the same lora_rank, optim and precision",
        ) from error


def restore_best(engine: Any, folder: JobFolder, metric: str, rank: int) -> int:
    """Restore the checkpoint that is best by ``metric`` and return its step; every rank calls this."""
    path = _agreed(best_checkpoint(folder, metric) if rank == 0 else None)
    assert path is not None, "the last step's is there"
    return _restore(engine, path, rank)


def find_checkpoint(place: str, key: str = "resume_from_checkpoint") -> Path:
    """Return the checkpoint that a value of ``key`` means: itself, or a job folder's newest whole one.

    Raises:
        ByzerError: there is none.
    """
    path = Path(place).expanduser().absolute()
    candidates = [path] if (path / "manifest.json").is_file() else list(reversed(committed(JobFolder(path))))
    for candidate in candidates:
        if is_whole(candidate):
            return candidate
    raise ByzerError(
        f"there is no whole checkpoint at {place}",
        where=f"in {key}",
        do="give a job's folder, or one of its checkpoints/step-N",
    )


def best_checkpoint(folder: JobFolder, metric: str) -> Path | None:
    """Return the committed checkpoint with the best evaluation, the earliest of equals; None when none has one."""
    scored = [(path, read_json(path / "manifest.json").get("metrics", {}).get(metric)) for path in committed(folder)]
    known = [(path, float(score)) for path, score in scored if score is not None]
    sign = -1.0 if HIGHER_IS_BETTER[metric] else 1.0
    return min(known, key=lambda one: sign * one[1])[0] if known else None


def committed(folder: JobFolder) -> list[Path]:
    """Checkpoints that have a manifest, oldest first."""
    found = [path.parent for path in folder.checkpoints.glob("step-*/manifest.json")]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def is_whole(checkpoint: Path) -> bool:
    """Whether every file is there with the checksum that the manifest recorded."""
    try:
        manifest = read_json(checkpoint / "manifest.json")
    except ValueError:  # not JSON, or not text
        return False
    return bool(manifest.get("files") == _digests(checkpoint))


def _restore(engine: Any, checkpoint: Path, rank: int) -> int:
    """Load a checkpoint's weights, optimizer and random state; return its step."""
    import torch

    engine.load_checkpoint(str(checkpoint), tag=TAG, load_module_strict=False)
    _restore_random_state(torch.load(checkpoint / f"random-{rank}.pt", weights_only=True))
    return int(read_json(checkpoint / "manifest.json")["step"])


def _agreed(choice: Path | None) -> Path | None:
    """Return rank 0's choice on every rank."""
    import torch.distributed as dist

    message = [None if choice is None else str(choice)]
    dist.broadcast_object_list(message, src=0)
    return None if message[0] is None else Path(message[0])


def _newest_whole(folder: JobFolder) -> Path | None:
    """Return the newest whole checkpoint; damaged ones before it lose their manifest.

    Otherwise a damaged one would count among those kept, and push the whole ones out.
    """
    for path in reversed(committed(folder)):
        if is_whole(path):
            return path
        (path / "manifest.json").unlink()
    return None


def export_model(engine: Any, target: Path, rank: int, fence: Callable[[], None] = lambda: None) -> None:
    """Write the trained weights as a folder that transformers, or peft for an adapter, loads.

    Every rank calls this: under ZeRO-3 the weights are gathered, one parameter at a time. Frozen weights of an
    adapter's base are not written.

    Args:
        engine: The DeepSpeed engine.
        target: The folder; what was there is replaced.
        rank: This process's rank.
        fence: As of `save_checkpoint`.
    """
    state = _gathered_state(engine, rank)
    if rank == 0:
        fence()
        staging = target.with_name(f".{target.name}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        engine.module.save_pretrained(staging, state_dict=state)
        fence()
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)


def _gathered_state(engine: Any, rank: int) -> dict[str, Any]:
    """Return the model's state on rank 0 (empty elsewhere), trainable parameters and buffers only for adapters."""
    model: nn.Module = engine.module
    if engine.zero_optimization_stage() < 3:
        return dict(model.state_dict()) if rank == 0 else {}
    import deepspeed

    adapter_only = hasattr(model, "peft_config")
    state: dict[str, Any] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if adapter_only and not parameter.requires_grad:
            continue
        with deepspeed.zero.GatheredParameters([parameter]):
            if rank == 0:
                state[name] = parameter.detach().cpu().clone()
    if rank == 0 and not adapter_only:
        persistent = set(model.state_dict().keys())
        state |= {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    return state


def _digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file below ``folder`` but the manifest."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            with path.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            digests[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": digest}
    return digests


def _random_state() -> dict[str, Any]:
    import torch

    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_random_state(state: dict[str, Any]) -> None:
    import torch

    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
