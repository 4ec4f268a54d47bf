"""The optimizers of ``optim``, over a model's trainable parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .loop_settings import LoopSettings


def build_optimizer(model: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer:
    """Return the run's optimizer; matrices decay, norms and biases do not.

    The default is torch's AdamW, fused: a resumed run is then bit for bit the uninterrupted one on a CPU.
    """
    import torch

    trainable = [p for p in model.parameters() if p.requires_grad]
    matrices = {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay}
    others = {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0}
    groups = [group for group in (matrices, others) if group["params"]]
    on_gpu = torch.cuda.is_available()
    adam: dict[str, Any] = {"lr": settings.learning_rate, "betas": settings.betas, "eps": settings.epsilon}
    match settings.optim:
        case "sgd":
            return torch.optim.SGD(groups, lr=settings.learning_rate)
        case "adafactor":
            from transformers.optimization import Adafactor

            made: torch.optim.Optimizer = Adafactor(
                groups, lr=settings.learning_rate, scale_parameter=False, relative_step=False
            )
            return made
        case "adamw_bnb_8bit" | "paged_adamw_8bit" | "paged_adamw_32bit" if on_gpu:
            return _from_bitsandbytes(settings.optim, groups, adam)
        case None | "adamw_torch_fused":
            return torch.optim.AdamW(groups, fused=True, **adam)
        case _:  # adamw_torch, and paged_adamw_32bit where there is no GPU whose memory could be paged out
            return torch.optim.AdamW(groups, **adam)


def _from_bitsandbytes(name: str, groups: list[dict[str, Any]], adam: dict[str, Any]) -> torch.optim.Optimizer:
    from bitsandbytes.optim import adamw

    kinds: dict[str, Any] = {
        "adamw_bnb_8bit": adamw.AdamW8bit,
        "paged_adamw_8bit": adamw.PagedAdamW8bit,
        "paged_adamw_32bit": adamw.PagedAdamW32bit,
    }
    made: torch.optim.Optimizer = kinds[name](groups, **adam)
    return made
