"""peft's LoRA on a frozen linear layer, as one operation: y = x Wᵀ + b + s · (x Aᵀ) Bᵀ.

peft adds the low-rank product in steps, each of which reads and writes a tensor as large as the layer's output, forward
and backward. Here matrix products add to what is there already. The result is peft's but for rounding, the layer stays
peft's (its weights, its merging, its files), and `docs/log.md` has what is saved.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners import lora
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


def fuse_lora(model: nn.Module) -> None:
    """Let a peft model compute its LoRA layers so, in place; other layers (DoRA's, in four bits) stay as they are.

    Not for ZeRO-3, which gathers a layer's weights when the layer is called: A and B are not, here.
    """
    for module in model.modules():
        if type(module) is lora.Linear and _is_plain(module):
            module.__class__ = LoraLinear


class LoraLinear(lora.Linear):  # type: ignore[misc]
    """peft's layer with another forward."""

    def forward(self, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        """Return ``[…, out]`` for ``[…, in]``."""
        [name] = self.active_adapters
        base, a, b = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        if self.disable_adapters or self.merged or args or options or x.dtype != a.dtype:
            whole: torch.Tensor = super().forward(x, *args, **options)
            return whole
        dropped = self.lora_dropout[name](x)
        found: torch.Tensor = _LowRank.apply(
            x, None if dropped is x else dropped, base.weight, base.bias, a, b, self.scaling[name]
        )
        return found


def _is_plain(module: Any) -> bool:
    """Whether a LoRA layer is one adapter on a frozen layer in full precision, with nothing else about it."""
    base = module.base_layer
    return (
        type(base) is nn.Linear
        and not any(parameter.requires_grad for parameter in base.parameters())
        and len(module.active_adapters) == 1
        and not module.lora_variant
        and not any(module.lora_bias.values())
    )


class _LowRank(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(  # noqa: PLR0917 - `apply` takes no keywords
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low_in = rows if dropped is None else dropped.reshape(rows.shape)
        low = low_in @ a.t()
        y = linear(rows, weight, bias).addmm_(low, b.t(), alpha=scaling)
        ctx.save_for_backward(low_in, low, weight, a, b)
        ctx.scaling, ctx.is_dropped = scaling, dropped is not None
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        low_in, low, weight, a, b = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_low = (rows @ b).mul_(ctx.scaling)
        of_a, of_b = of_low.t() @ low_in, (rows.t() @ low).mul_(ctx.scaling)
        of_x = of_dropped = None
        if ctx.needs_input_grad[0]:  # not in the first layer
            of_x = rows @ weight
            if ctx.is_dropped:
                of_dropped = (of_low @ a).view(*gradient.shape[:-1], -1)
            else:
                of_x.addmm_(of_low, a)
            of_x = of_x.view(*gradient.shape[:-1], -1)
        return of_x, of_dropped, None, None, of_a, of_b, None
