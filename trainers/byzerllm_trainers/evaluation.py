"""How well the model does on data that it is not trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .loss import Objective
from .packing import Plan

if TYPE_CHECKING:
    from .engine import Rank

HIGHER_IS_BETTER = {"eval_loss": False, "eval_accuracy": True}
"""The metrics that `evaluate` returns."""


def evaluate(
    engine: Any, plan: Plan, rank: Rank, objective: Objective, on_batch: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Return the mean loss and the share of targets that are right, over one epoch of ``plan`` and all ranks.

    Every rank calls this and computes its share; nothing random happens, and training goes on as if it had not
    been. ``on_batch`` is called after each batch.
    """
    import torch
    import torch.distributed as dist

    sums = torch.zeros(3, dtype=torch.float64)  # loss, targets that are right, targets
    engine.eval()
    with torch.no_grad():
        for index in range(plan.steps_per_epoch):
            for batch in plan.step(index, rank.index).batches:
                sums += torch.tensor(objective.scores(engine, batch), dtype=torch.float64)
                on_batch()
    engine.train()
    sums = sums.to(engine.device)
    if rank.world > 1:
        dist.all_reduce(sums)
    total, right, tokens = sums.tolist()
    return {"eval_loss": round(total / tokens, 6), "eval_accuracy": round(right / tokens, 6)}
