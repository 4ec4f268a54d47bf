"""Cross entropy whose gradient is made in the memory of its own log-probabilities.

PyTorch's keeps the logits in fp32 and their log-softmax, and allocates a one-hot gradient and the logits' gradient:
four tensors of [tokens, vocabulary] in fp32, the largest of a step for models of a usual vocabulary. Here there is one.
`docs/log.md` has what that saves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


def summed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy in fp32, summed; its gradient can be asked for once.

    Args:
        logits: ``[tokens, vocabulary]``, of any precision.
        labels: ``[tokens]``, each one a token of the vocabulary.
    """
    found: torch.Tensor = _SummedCrossEntropy.apply(logits, labels)
    return found


class _SummedCrossEntropy(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        chosen = labels[:, None]
        log_probabilities = logits.log_softmax(-1, dtype=torch.float32)
        ctx.precision = logits.dtype
        ctx.kept = log_probabilities, chosen  # not saved for backward: that forbids to overwrite it
        return -log_probabilities.gather(1, chosen).sum()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The probabilities, less one at the label."""
        assert ctx.kept is not None, "the log-probabilities were overwritten by the first backward"
        (log_probabilities, chosen), ctx.kept = ctx.kept, None
        probabilities = log_probabilities.exp_()
        probabilities.scatter_add_(1, chosen, probabilities.new_full(chosen.shape, -1.0))
        return probabilities.mul_(gradient).to(ctx.precision), None
