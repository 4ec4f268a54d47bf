"""A trained model's folder: what transformers, or peft for an adapter, loads."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def export_model(engine: Any, target: Path, rank: int, fence: Callable[[], None] = lambda: None) -> None:
    """Write the trained weights as a folder that transformers, or peft for an adapter, loads.

    Every rank calls this: under ZeRO-3 the weights are gathered, one parameter at a time. Frozen weights of an
    adapter's base are not written.

    Args:
        engine: The DeepSpeed engine.
        target: The folder; what was there is replaced.
        rank: This process's rank.
        fence: Called on rank 0 before anything that others may have written is removed or replaced; it raises if
            this attempt may not write any more.
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
