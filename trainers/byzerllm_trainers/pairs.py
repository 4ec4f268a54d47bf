"""The data order of pairs: two consecutive examples, the chosen answer and the rejected one, stay in one batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .packing import IGNORED, Batch, GroupedRows, Layout, padded
from .shards import Longs, Shards


class PairedRows(GroupedRows):
    """Pairs of similar length share a step; in a batch, too, a pair is two consecutive rows. Targets are the pairs.

    Args:
        shards: The examples ``2i`` and ``2i + 1`` are pair ``i``: both have something to learn, or none has.
        layout: How pairs are dealt.
        grouped: False: steps take the pairs as they are shuffled, whatever their length.

    Raises:
        NothingToLearn: there is no pair with something to learn.
    """

    def __init__(self, shards: Shards, layout: Layout, *, grouped: bool = True) -> None:
        self._sides = shards
        super().__init__(replace(shards, offsets=shards.offsets[::2]), layout, grouped=grouped)  # a pair is as one

    def counts(self, index: int) -> tuple[int, int]:
        """Return pairs and real tokens of the step."""
        return len(self._rows(index)), super().counts(index)[1]

    def _batch(self, examples: Longs, fallback: int) -> Batch:
        """Return the rows of pairs; a rank without any computes one unsupervised pair and stays in step."""
        pairs = examples if len(examples) else np.array([fallback])
        sides = (2 * pairs[:, None] + np.arange(2)).reshape(-1)
        batch = padded([self._sides.example(int(side)) for side in sides])
        return batch if len(examples) else replace(batch, labels=np.full_like(batch.labels, IGNORED))
