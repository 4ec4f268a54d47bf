"""The weights in a checkpoint of DeepSpeed's, whatever its ZeRO stage and however many ranks wrote it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint import STATE

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class TrainedWeights:
    """What was trained.

    Attributes:
        stage: ZeRO's stage.
        dtype: What the run computed in: ``bfloat16``, ``float16`` or ``float32``.
        state: Every trained weight in fp32 (the optimizer's master where there is one), and persistent buffers.
    """

    stage: int
    dtype: str
    state: dict[str, torch.Tensor]


def read_trained_weights(checkpoint: Path, model: nn.Module) -> TrainedWeights:
    """Read a checkpoint's weights.

    Args:
        checkpoint: ``checkpoints/step-N`` of a job of ours: its files are pickles, as DeepSpeed writes them.
        model: One of the same architecture, its trainable parameters marked: the order of the masters is its.
    """
    import torch

    from ..engine import import_deepspeed

    import_deepspeed()
    folder = checkpoint / STATE
    first = sorted(folder.glob("*_model_states.pt"))[0]
    saved = torch.load(first, map_location="cpu", mmap=True, weights_only=False)
    config = saved["ds_config"]
    in_16_bit = {"bfloat16": "bf16", "float16": "fp16"}
    dtype = next((name for name, key in in_16_bit.items() if config.get(key, {}).get("enabled")), "float32")
    stage = int(config.get("zero_optimization", {}).get("stage", 0))
    if any(folder.glob("*_optim_states.pt")):
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # a bar a shard
            state = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), STATE, exclude_frozen_parameters=True)
        return TrainedWeights(stage, dtype, dict(state))
    state = dict(saved["module"])
    masters = (saved["optimizer"] or {}).get("fp32_groups")
    if masters is not None:
        state |= _named(masters, model)
    return TrainedWeights(stage, dtype, state)


def _named(masters: Sequence[Sequence[torch.Tensor]], model: nn.Module) -> dict[str, Any]:
    """Return the fp32 masters of an optimizer without ZeRO by name: its groups are as `build_optimizer` makes them."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [(name, p) for name, p in trainable if p.ndim >= 2]
    others = [(name, p) for name, p in trainable if p.ndim < 2]
    groups = [group for group in (matrices, others) if group]
    named = {}
    for group, tensors in zip(groups, masters, strict=True):
        for (name, parameter), master in zip(group, tensors, strict=True):
            assert master.shape == parameter.shape, f"{name}: {list(master.shape)} for {list(parameter.shape)}"
            named[name] = master
    return named
