"""``keepPartitionNum``: each rank trains on partitions of the table that are its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from .job_folder import Record
from .packing import IGNORED, Batch, Layout, NothingToLearn, Plan, Step
from .shards import Shards


def own_partitions(shards: Shards, layout: Layout, make: Callable[[Shards, Layout], Plan]) -> OwnPartitions:
    """Give each rank consecutive partitions, as many as the others or one more.

    Args:
        shards: Examples whose partitions are known, at least as many as there are ranks.
        layout: How rows are dealt.
        make: Plans the examples of one rank, for a layout of one.

    Raises:
        NothingToLearn: no rank has a token to learn.
    """
    bounds, world = shards.partitions, layout.world
    assert bounds is not None, "kept when the job was made"
    assert len(bounds) > world, "checked when the job was made"
    ends = [bounds[rank * (len(bounds) - 1) // world] for rank in range(world + 1)]
    alone, plans = replace(layout, world=1), list[Plan | None]()
    for begin, end in pairwise(ends):
        try:
            plans.append(make(shards.between(begin, end), alone))
        except NothingToLearn:
            plans.append(None)
    if not any(plans):
        make(shards, layout)  # raises why
    return OwnPartitions(plans, layout.accumulation)


def partition_counts(shards: Shards, plan: Plan) -> Record:
    """Return what the ``prepared`` event says of partitions; nothing where they do not matter."""
    if shards.partitions is None:
        return {}
    assert isinstance(plan, OwnPartitions)
    return {"partitions": len(shards.partitions) - 1, "percent_idle": round(100 * plan.idle_share)}


class OwnPartitions:
    """Steps of which every rank has a plan of its own; who has no more rows computes without learning, in step.

    An epoch is as long as the longest share: each example is used once in it.

    Args:
        plans: Each rank's, for one rank; None: it has nothing to learn. At least one has.
        accumulation: Micro-batches of a step.
    """

    def __init__(self, plans: Sequence[Plan | None], accumulation: int) -> None:
        self._plans, self._accumulation = plans, accumulation
        self._lengths = [plan.steps_per_epoch if plan else 0 for plan in plans]
        self.steps_per_epoch = max(self._lengths)

    @property
    def idle_share(self) -> float:
        """The share of all ranks' steps, 0 to 1, in which a rank has no rows."""
        return 1 - sum(self._lengths) / (len(self._lengths) * self.steps_per_epoch)

    def step(self, index: int, rank: int) -> Step:
        """Return the step as a rank sees it."""
        plan, own = self._at(index)[rank]
        idle = Batch(np.zeros((1, 1), np.int64), np.full((1, 1), IGNORED, np.int64))
        batches = [idle] * self._accumulation if plan is None else plan.step(own, 0).batches
        return Step(batches, *self.counts(index))

    def counts(self, index: int) -> tuple[int, int]:
        """Return supervised and real tokens of the step over all ranks."""
        counts = [plan.counts(own) for plan, own in self._at(index) if plan]
        return sum(targets for targets, _ in counts), sum(tokens for _, tokens in counts)

    def _at(self, index: int) -> list[tuple[Plan | None, int]]:
        """Return for each rank its plan and that plan's step; None: it has none left in this epoch."""
        epoch, within = divmod(index, self.steps_per_epoch)
        return [
            (plan, epoch * length + within) if within < length else (None, 0)
            for plan, length in zip(self._plans, self._lengths, strict=True)
        ]
