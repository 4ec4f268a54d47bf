"""Direct preference optimization (Rafailov et al., 2023): what a pair of answers costs, without a reward model.

The reward of an answer is ``beta`` times the logarithm of how much likelier the model finds it than the reference
does; the loss is small where the chosen answer's reward is above the rejected one's. The reference is the base with
the adapter off, computed in the same step: that takes a forward pass more (LoRA's forward and backward cost four
FLOPs a weight and token, the reference two), but nothing is kept between steps, on disk or in memory. Computing it once
beforehand would save work from the second epoch on only, and preferences are learned in one or two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from .loss import supervised
from .packing import IGNORED, Batch

if TYPE_CHECKING:
    import torch

LossType = Literal["sigmoid", "hinge", "ipo"]

METRICS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
"""TRL's names of a step's mean rewards, their difference, and the share of pairs whose chosen answer has the higher."""


class Preferences:
    """The loss of pairs, which are the targets. A pair is two consecutive rows: the chosen answer, the rejected one.

    Args:
        beta: How strongly a deviation from the reference counts.
        loss_type: ``sigmoid`` (DPO), ``hinge`` (SLiC) or ``ipo`` (Azar et al., 2023; log-probabilities are means over
            an answer's tokens, as TRL has them from its authors).
    """

    metrics: tuple[str, ...] = METRICS
    extra_forwards = 1  # of the reference

    def __init__(self, beta: float, loss_type: LossType) -> None:
        self._beta, self._type = beta, loss_type

    def summed_loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return ``[5]``: the loss and each of `METRICS`, summed over the batch's pairs."""
        import torch

        ratios, tokens = log_ratios(model, batch)
        chosen, rejected = (self._beta * ratios.detach()).unbind(1)
        measured = (chosen, rejected, chosen - rejected, (chosen > rejected).float())
        return torch.stack([self.losses(ratios, tokens).sum(), *(each.sum() for each in measured)])

    def scores(self, model: Any, batch: Batch) -> tuple[float, int, int]:
        """Return the summed loss, the pairs whose chosen answer has the higher reward, and the pairs."""
        ratios, tokens = log_ratios(model, batch)
        loss = self.losses(ratios, tokens).sum().item()
        return loss, int((ratios[:, 0] > ratios[:, 1]).sum()), len(ratios)

    def losses(self, ratios: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return each pair's loss ``[pairs]``, from what `log_ratios` returns."""
        from torch.nn.functional import logsigmoid

        if self._type == "ipo":
            means = ratios / tokens
            return (means[:, 0] - means[:, 1] - 1 / (2 * self._beta)) ** 2
        margins = self._beta * (ratios[:, 0] - ratios[:, 1])
        return -logsigmoid(margins) if self._type == "sigmoid" else (1 - margins).relu()


def log_ratios(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how much likelier the model finds each answer than the reference does, and how long each is.

    Args:
        model: A peft model, or a DeepSpeed engine around one.
        batch: Pairs in consecutive rows. Rows without a label are no part of one.

    Returns:
        The logarithms of the ratios and the supervised tokens, both ``[pairs, 2]``: chosen, rejected.
    """
    import torch

    learned = torch.from_numpy(batch.labels != IGNORED)
    tokens = learned.sum(1)
    with reference(model):
        before = _log_probabilities(model, batch)
    now = _log_probabilities(model, batch)
    row = learned.nonzero()[:, 0].to(now.device)
    # token by token: the difference of two long sums would lose the digits that count
    sums = now.new_zeros(len(tokens)).index_add(0, row, now - before)
    return sums[tokens > 0].reshape(-1, 2), tokens[tokens > 0].reshape(-1, 2).to(now.device)


@contextmanager
def reference(model: Any) -> Iterator[None]:
    """Make a peft model, or the one in an engine, its base alone: the adapter is off, nothing random, no gradients."""
    import torch

    module = getattr(model, "module", model)
    training = module.training
    module.eval()
    try:
        with torch.no_grad(), module.disable_adapter():
            yield
    finally:
        module.train(training)


def _log_probabilities(model: Any, batch: Batch) -> torch.Tensor:
    """Return the logarithm of each supervised token's probability, ``[supervised]``, in fp32."""
    from torch.nn.functional import cross_entropy

    logits, labels = supervised(model, batch)
    return -cross_entropy(logits.float(), labels, reduction="none")
