"""Which tokens each rank trains on in each step: a pure function of (seed, step, rank, world size).

Two plans: `GroupedRows` for conversations (rows of similar length share a batch, so little is padded and the
full speed of ``[rows, width]`` attention is kept) and `PackedStream` for running text (windows of one length,
nothing padded but the last). `packed_rows` has a third, `pairs` a fourth. Rows are right-padded and carry no attention
mask: a causal model never looks at what follows, and with SDPA a mask, even of ones, would select a slower kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from byzerllm_adapters.errors import ByzerError

from .shards import Longs, Shards

IGNORED = -100
"""The label of a position that is not predicted."""

CHUNK_STEPS = 50
"""Rows are sorted by length within chunks of this many steps: sorted enough to pad little, mixed enough to shuffle."""


@dataclass(frozen=True)
class Batch:
    """One rank's micro-batch.

    Attributes:
        input_ids: int64 ``[rows, width]``, right-padded with 0.
        labels: int64 ``[rows, width]``, already shifted: ``labels[:, t]`` is what follows ``input_ids[:, t]``,
            `IGNORED` where the loss does not apply.
        position_ids: int64 ``[rows, width]`` where a row holds several examples: each begins at 0. None: one a row.
    """

    input_ids: Longs
    labels: Longs
    position_ids: Longs | None = None


@dataclass(frozen=True)
class Step:
    """One optimizer step as one rank sees it.

    Attributes:
        batches: This rank's micro-batches, one per accumulation step.
        targets: Supervised tokens of the step over **all** ranks and micro-batches: the loss's denominator.
        tokens: Real (unpadded) tokens of the step over all ranks.
    """

    batches: list[Batch]
    targets: int
    tokens: int


class Plan(Protocol):
    """A data order. Any step may be asked for in any order, on any rank, after any restart."""

    steps_per_epoch: int

    def step(self, index: int, rank: int) -> Step:
        """Return the step with this global index, counted from 0 over all epochs."""
        ...

    def counts(self, index: int) -> tuple[int, int]:
        """Return supervised and real tokens of the step over all ranks, without making its batches."""
        ...


class NothingToLearn(ByzerError):
    """There is no token that a model could learn to predict."""


@dataclass(frozen=True)
class Layout:
    """How many rows go where: ``rows`` a device and micro-batch, ``accumulation`` micro-batches, ``world`` ranks."""

    rows: int
    accumulation: int
    world: int
    seed: int

    @property
    def rows_per_step(self) -> int:
        """Rows that one optimizer step consumes over all ranks."""
        return self.rows * self.accumulation * self.world


class GroupedRows:
    """One row an example; examples of similar length share a step.

    Args:
        shards: The examples.
        layout: How rows are dealt.
        grouped: False: steps take the examples as they are shuffled, whatever their length.

    Raises:
        NothingToLearn: there is no example with a supervised token.
    """

    def __init__(self, shards: Shards, layout: Layout, *, grouped: bool = True) -> None:
        self._shards, self._layout, self._grouped = shards, layout, grouped
        self._usable = np.flatnonzero(shards.targets > 0)
        if not len(self._usable):
            raise NothingToLearn(
                "no example has a token to learn: every answer is empty or cut off",
                do="check the rows, or raise max_seq_length",
            )
        self.steps_per_epoch = -(-len(self._usable) // layout.rows_per_step)

    def step(self, index: int, rank: int) -> Step:
        """Deal the step's rows to ranks and micro-batches; all ranks get rows of similar length."""
        rows = self._rows(index)
        rows = rows[np.argsort(-self._shards.lengths[rows], kind="stable")]
        layout = self._layout
        share = layout.rows * layout.world
        micro = [rows[i * share : (i + 1) * share][rank :: layout.world] for i in range(layout.accumulation)]
        return Step([self._batch(mine, fallback=int(rows[-1])) for mine in micro], *self.counts(index))

    def counts(self, index: int) -> tuple[int, int]:
        """Return supervised and real tokens of the step."""
        rows = self._rows(index)
        return int(self._shards.targets[rows].sum()), int(self._shards.lengths[rows].sum())

    def _rows(self, index: int) -> Longs:
        """Return the examples of a step."""
        return self._epoch(index // self.steps_per_epoch)[index % self.steps_per_epoch]

    @lru_cache(maxsize=2)  # noqa: B019 - one plan lives as long as its process
    def _epoch(self, epoch: int) -> list[Longs]:
        """Return the steps of an epoch, each the indices of its examples; every example is in exactly one."""
        random = np.random.default_rng([self._layout.seed, epoch])
        order = random.permutation(self._usable)
        per_step = self._layout.rows_per_step
        if not self._grouped:
            return [order[i : i + per_step] for i in range(0, len(order), per_step)]
        steps: list[Longs] = []
        for start in range(0, len(order), per_step * CHUNK_STEPS):
            chunk = order[start : start + per_step * CHUNK_STEPS]
            chunk = chunk[np.argsort(self._shards.lengths[chunk], kind="stable")]
            steps += [chunk[i : i + per_step] for i in range(0, len(chunk), per_step)]
        return [steps[i] for i in random.permutation(len(steps))]

    def _batch(self, examples: Longs, fallback: int) -> Batch:
        """Return the rows of ``examples``; a rank without any computes one unsupervised row and stays in step."""
        if not len(examples):
            batch = padded([self._shards.example(fallback)])
            return Batch(batch.input_ids, np.full_like(batch.labels, IGNORED))
        return padded([self._shards.example(int(i)) for i in examples])


class PackedStream:
    """Documents joined end to end and cut into windows of ``width`` tokens, shuffled by seed.

    Every token but the last is an input once an epoch, every token but the first a target once: a window's last target
    is the first token of the next.

    Raises:
        NothingToLearn: there are fewer than two tokens.
    """

    def __init__(self, shards: Shards, layout: Layout, width: int) -> None:
        self._tokens, self._layout, self._width = shards.tokens, layout, width
        self._targets = len(shards.tokens) - 1
        if self._targets < 1:
            raise NothingToLearn(
                "the text holds no tokens to train on", do="check the table's column or the folder's files"
            )
        self._windows = -(-self._targets // width)
        self.steps_per_epoch = -(-self._windows // layout.rows_per_step)

    def step(self, index: int, rank: int) -> Step:
        """Deal the step's windows to ranks and micro-batches."""
        windows, layout = self._windows_of(index), self._layout
        share = layout.rows * layout.world
        micro = [windows[i * share : (i + 1) * share][rank :: layout.world] for i in range(layout.accumulation)]
        return Step([self._batch(mine) for mine in micro], *self.counts(index))

    def counts(self, index: int) -> tuple[int, int]:
        """Return the tokens of the step, twice: all are supervised."""
        targets = sum(self._length(int(window)) for window in self._windows_of(index))
        return targets, targets

    def _windows_of(self, index: int) -> Longs:
        """Return the windows of a step."""
        epoch, within = divmod(index, self.steps_per_epoch)
        begin = within * self._layout.rows_per_step
        return self._order(epoch)[begin : begin + self._layout.rows_per_step]

    @lru_cache(maxsize=2)  # noqa: B019 - one plan lives as long as its process
    def _order(self, epoch: int) -> Longs:
        return np.random.default_rng([self._layout.seed, epoch]).permutation(self._windows)

    def _length(self, window: int) -> int:
        return min(self._width, self._targets - window * self._width)

    def _batch(self, windows: Longs) -> Batch:
        if not len(windows):  # this rank has nothing in the last, partial step
            return Batch(np.zeros((1, self._width), np.int64), np.full((1, self._width), IGNORED, np.int64))
        pieces = [self._tokens[w * self._width : w * self._width + self._length(int(w)) + 1] for w in windows]
        return padded([(piece, np.ones(len(piece), np.bool_)) for piece in pieces])


def padded(examples: Sequence[tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]]) -> Batch:
    """Stack (ids, mask) pairs into one right-padded batch of shifted labels."""
    width = max(1, max(len(ids) for ids, _ in examples) - 1)
    input_ids = np.zeros((len(examples), width), np.int64)
    labels = np.full((len(examples), width), IGNORED, np.int64)
    for row, (ids, mask) in enumerate(examples):
        input_ids[row, : len(ids) - 1] = ids[:-1]
        labels[row, : len(ids) - 1] = np.where(mask[1:], ids[1:], IGNORED)
    return Batch(input_ids, labels)
