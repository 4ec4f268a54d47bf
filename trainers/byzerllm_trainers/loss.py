"""What training makes smaller; for all but preferences the cross entropy of a batch's supervised positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from byzerllm_adapters.errors import ByzerError

from .model_options import base_of
from .packing import IGNORED, Batch

if TYPE_CHECKING:
    import torch


class Objective(Protocol):
    """What a batch's loss is. A step's loss is the sum over its batches by what its plan counts as targets.

    Attributes:
        metrics: What a step's record says besides: means over targets, too.
        extra_forwards: How often a batch goes through the model without a backward.
    """

    metrics: tuple[str, ...]
    extra_forwards: int

    def summed_loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the loss over a batch's targets, summed, in fp32; it can be derived.

        With `metrics`: ``[1 + metrics]``, the loss and each of them, summed.
        """
        ...

    def scores(self, model: Any, batch: Batch) -> tuple[float, int, int]:
        """Return the summed loss, the targets that the model gets right, and the targets."""
        ...


class NextToken:
    """Cross entropy of each supervised token given those before it."""

    metrics: tuple[str, ...] = ()
    extra_forwards = 0

    def summed_loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the sum over the batch's supervised tokens."""
        from .cross_entropy import summed_cross_entropy

        return summed_cross_entropy(*supervised(model, batch))

    def scores(self, model: Any, batch: Batch) -> tuple[float, int, int]:
        """Return the summed loss, how many tokens are the likeliest by the model, and how many there are."""
        from .cross_entropy import summed_cross_entropy

        logits, labels = supervised(model, batch)
        loss = summed_cross_entropy(logits, labels).item()
        return loss, int((logits.argmax(-1) == labels).sum()), len(labels)


def supervised(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits ``[supervised, vocabulary]`` and the labels ``[supervised]`` of a batch.

    Args:
        model: A causal language model, or a DeepSpeed engine around one.
        batch: Ids and shifted labels, ``[rows, width]``.

    The head computes supervised positions only: a hook picks their hidden states right before it, so that this
    works for every family whose head is a module.
    """
    import torch

    module = getattr(model, "module", model)
    device = next(module.parameters()).device
    labels = torch.from_numpy(np.ascontiguousarray(batch.labels)).to(device)
    chosen = labels != IGNORED

    def pick(_head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][chosen], *inputs[1:])

    hook = _head(module).register_forward_pre_hook(pick)
    try:
        logits = model(**_inputs(batch, device), use_cache=False).logits
    finally:
        hook.remove()
    return logits, labels[chosen]


def _inputs(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """Return what a model gets. Never an attention mask: one of ones would hide the ``position_ids``' block mask."""
    import torch

    inputs = {"input_ids": batch.input_ids}
    if batch.position_ids is not None:
        inputs["position_ids"] = batch.position_ids
    return {name: torch.from_numpy(np.ascontiguousarray(values)).to(device) for name, values in inputs.items()}


def _head(module: Any) -> torch.nn.Module:
    """Return the module that turns hidden states into logits."""
    base = base_of(module)
    head: torch.nn.Module | None = base.get_output_embeddings()
    if head is None:
        raise ByzerError(f"{type(base).__name__} has no language-model head to train")
    return head
