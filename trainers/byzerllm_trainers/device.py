"""What a run asks of its device: refused before anything starts where the device cannot do it."""

from __future__ import annotations

from byzerllm_adapters.errors import ByzerError

from .loop_settings import LoopSettings

NEEDS_GPU = ("adamw_bnb_8bit", "paged_adamw_8bit")
"""Optimizers whose state bitsandbytes keeps in eight bits, which it computes on GPUs."""


def check_device(settings: LoopSettings, *, gpu: bool) -> None:
    """Refuse what only a GPU computes, for workers without one.

    Raises:
        ByzerError: float16, or an optimizer of `NEEDS_GPU`.
    """
    if gpu:
        return
    if settings.fp16:
        raise ByzerError(
            "fp16 needs a GPU, and the workers have none", do='write bf16="true" in its place, or leave both out'
        )
    if settings.optim in NEEDS_GPU:
        raise ByzerError(
            f"optim={settings.optim} needs a GPU, and the workers have none",
            do='write optim="adamw_torch", or adafactor for less memory',
        )
