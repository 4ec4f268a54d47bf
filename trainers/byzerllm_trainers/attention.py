"""Attention of a model that trains in bf16 on a CPU: computed in fp32.

torch's fused attention multiplies its blocks one small product at a time, and in bf16 each of them goes through
oneDNN's look-up. Measured on two cores of an AVX512-BF16 EPYC, [8, 4, width, 64], backward: 1.5 ms in bf16 and
0.4 ms in fp32 at width 24, 5.1 and 2.5 at 88, 17.6 and 14.2 at 256; forward is the same. A LoRA step on short
rows is 12 % faster in all (docs/log.md), and attention is the more exact for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "sdpa_in_fp32"


def attend_in_fp32(model: Any) -> None:
    """Let a transformers model (or a peft model around one) that attends with SDPA do so in fp32.

    A model that attends otherwise (eager, its own code) stays as it is.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if getattr(getattr(base, "config", None), "_attn_implementation", None) != "sdpa":
        return
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, _sdpa_in_fp32)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    base.set_attn_implementation(NAME)


def _sdpa_in_fp32(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' SDPA over ``[rows, heads, width, size]``, computed in fp32, in the query's dtype again."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    mask = (
        attention_mask.float() if attention_mask is not None and attention_mask.is_floating_point() else attention_mask
    )
    attended, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **options)
    return attended.to(query.dtype), None
