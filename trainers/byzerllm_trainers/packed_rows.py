"""Several conversations in one row: ``sft.packing``.

Each keeps the positions and the attention that it would have alone: a row carries ``position_ids`` that begin at 0
with each conversation, and transformers makes the block mask of them. Rows are ``[rows, width]``, so attention costs
O(rows · width²), not the square of all their tokens.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from byzerllm_adapters.errors import ByzerError

from .packing import IGNORED, Batch, Layout, NothingToLearn, Step
from .shards import Longs, Shards

if TYPE_CHECKING:
    from torch import nn


class PackedRows:
    """Examples packed once, best fit in decreasing length; the rows are shuffled every epoch by seed.

    Args:
        shards: The examples.
        layout: How rows are dealt.
        width: Tokens of a row; no example is longer.

    Raises:
        NothingToLearn: there is no example with a supervised token.
    """

    def __init__(self, shards: Shards, layout: Layout, width: int) -> None:
        self._shards, self._layout, self._width = shards, layout, width
        usable = np.flatnonzero(shards.targets > 0)
        if not len(usable):
            raise NothingToLearn(
                "no example has a token to learn: every answer is empty or cut off",
                do='check the rows, or raise "sft.max_seq_length"',
            )
        # an example's last token is no input: nothing follows it
        self._packs = [usable[pack] for pack in best_fit(shards.lengths[usable] - 1, width)]
        self.steps_per_epoch = -(-len(self._packs) // layout.rows_per_step)

    @property
    def efficiency(self) -> float:
        """The share of all positions that hold a token, 0 to 1."""
        used = sum(int(self._shards.lengths[pack].sum()) - len(pack) for pack in self._packs)
        return used / (len(self._packs) * self._width)

    def step(self, index: int, rank: int) -> Step:
        """Deal the step's rows to ranks and micro-batches."""
        packs, layout = self._packs_of(index), self._layout
        share = layout.rows * layout.world
        micro = [packs[i * share : (i + 1) * share][rank :: layout.world] for i in range(layout.accumulation)]
        return Step([self._batch(mine) for mine in micro], *self.counts(index))

    def counts(self, index: int) -> tuple[int, int]:
        """Return supervised and real tokens of the step."""
        rows = np.concatenate([self._packs[pack] for pack in self._packs_of(index)])
        return int(self._shards.targets[rows].sum()), int(self._shards.lengths[rows].sum())

    def _packs_of(self, index: int) -> Longs:
        epoch, within = divmod(index, self.steps_per_epoch)
        begin = within * self._layout.rows_per_step
        return self._order(epoch)[begin : begin + self._layout.rows_per_step]

    @lru_cache(maxsize=2)  # noqa: B019 - one plan lives as long as its process
    def _order(self, epoch: int) -> Longs:
        return np.random.default_rng([self._layout.seed, epoch]).permutation(len(self._packs))

    def _batch(self, packs: Longs) -> Batch:
        """Return rows of packs; a rank that has none in the last, partial step computes one without learning."""
        shape = (max(1, len(packs)), self._width)
        ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
        positions = np.tile(np.arange(self._width), (shape[0], 1))
        for row, pack in enumerate(packs):
            begin = 0
            for example in self._packs[pack]:
                tokens, mask = self._shards.example(int(example))
                end = begin + len(tokens) - 1
                ids[row, begin:end] = tokens[:-1]
                labels[row, begin:end] = np.where(mask[1:], tokens[1:], IGNORED)
                positions[row, begin:] = np.arange(self._width - begin)
                begin = end
        used = max(1, int(np.flatnonzero((labels != IGNORED).any(0))[-1]) + 1) if len(packs) else 1
        return Batch(ids[:, :used], labels[:, :used], positions[:, :used])


def best_fit(lengths: Longs, width: int) -> list[Longs]:
    """Pack examples into rows of ``width``: the longest first, each into the fullest row that has room for it.

    Best-fit decreasing, at most 11/9 of the fewest possible rows and one (Johnson, 1973). Rows are found by the room
    that they have left, so the time is that of sorting.

    Args:
        lengths: At most ``width`` each.
        width: Of a row.

    Returns:
        For each row the indices of its examples, in the order in which they stand in it.
    """
    assert lengths.max(initial=0) <= width, "cut when they were tokenised"
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(width + 1)]  # rows with exactly so much room left
    rooms: list[int] = []  # the rooms that some row has, ascending
    for example in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[example])
        place = bisect_left(rooms, length)
        if place == len(rooms):
            row, room = len(rows), width
            rows.append([])
        else:
            room = rooms[place]
            row = by_room[room].pop()
            if not by_room[room]:
                rooms.pop(place)
        rows[row].append(example)
        left = room - length
        if not by_room[left]:
            insort(rooms, left)
        by_room[left].append(row)
    return [np.array(row, np.int64) for row in rows]


def check_isolation(model: nn.Module) -> None:
    """Check that a model keeps the conversations of a row apart: two in one row are answered as each alone.

    A model without weights, on the meta device, has no answers and passes.

    Raises:
        ByzerError: its attention does not look at ``position_ids``.
    """
    import torch

    device = next(model.parameters()).device
    if device.type == "meta":
        return
    trained = model.training
    model.eval()
    first, second = torch.tensor([[3, 4, 5, 6]], device=device), torch.tensor([[7, 8, 9]], device=device)
    packed: Any = {
        "input_ids": torch.cat([first, second], dim=1),
        "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2]], device=device),
    }
    with torch.no_grad():
        alone = model(input_ids=second, use_cache=False).logits[0].float()
        together = model(**packed, use_cache=False).logits[0, 4:].float()
    model.train(trained)
    # rounding is far below this, attention to the other conversation far above
    if (alone - together).abs().max() > 0.05 * alone.std():
        raise ByzerError(
            "this model's attention does not keep the rows of a pack apart",
            where='in "sft.packing"',
            do="leave packing out: rows of similar length share a batch then",
        )
