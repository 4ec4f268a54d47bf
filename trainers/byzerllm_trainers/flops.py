"""How much a step computes, and how much of what the device can that is (MFU)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .model_options import base_of

if TYPE_CHECKING:
    from torch import nn

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "V100": 125e12,
    "T4": 65e12,
}
"""Dense FLOP/s in bf16 (fp16 where there is no bf16) by a part of the device's name; from NVIDIA's data sheets."""


@dataclass(frozen=True)
class ModelFlops:
    """What one token costs a model in training.

    A multiplication by a weight matrix is 2 FLOPs a weight forward, 2 backward for the activations' gradients, and 2
    for the weight's own if it is trained. Attention is 4 · layers · width forward and twice that backward for each
    token that a token is in a row with, as in the PaLM paper (Chowdhery et al., 2022, appendix B), which does not
    halve it for causality. What gradient checkpointing computes again does not count.

    Attributes:
        body: Weights of all matrices but the head's; embeddings are looked up, not multiplied.
        trained: Those of them that are trained.
        head: Weights of the language-model head, which is computed for supervised tokens alone.
        head_trained: Whether the head is trained.
        attention: Layers × hidden width.
    """

    body: int
    trained: int
    head: int
    head_trained: bool
    attention: int

    def of_step(self, tokens: float, supervised: float, width: float, extra_forwards: int = 0) -> float:
        """FLOPs of a step with so many tokens, supervised tokens, tokens in a row, and forwards without a backward."""
        body = (4 * self.body + 2 * self.trained) * tokens
        head = (6 if self.head_trained else 4) * self.head * supervised
        attention = 4 * self.attention * width * tokens
        forward = 2 * self.body * tokens + 2 * self.head * supervised + attention
        return body + head + 3 * attention + extra_forwards * forward


def model_flops(model: Any) -> ModelFlops:
    """Count a causal language model's matrices, or those of a peft model around one; before ZeRO-3 cuts them up."""
    from torch import nn

    base = base_of(model)
    head = base.get_output_embeddings()
    config = base.config.get_text_config()
    matrices = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head and not _holds(module, head)
    ]
    return ModelFlops(
        body=sum(_size(module) for module in matrices),
        trained=sum(_size(module) for module in matrices if module.weight.requires_grad),
        head=0 if head is None else _size(head),
        head_trained=head is not None and head.weight.requires_grad,
        attention=int(config.num_hidden_layers) * int(config.hidden_size),
    )


def peak_flops(half: bool) -> float | None:
    """FLOP/s that this process' GPU can do in half precision; None: unknown, no GPU, or another precision."""
    import torch

    if not half or not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def _size(module: nn.Module) -> int:
    # not of the weight: a quantised one is packed
    return int(module.in_features) * int(module.out_features)


def _holds(module: nn.Module, head: nn.Module | None) -> bool:
    return head is not None and any(part is head for part in module.modules())
