"""Which pairs each rank trains on: both sides in one batch, every pair once an epoch."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from byzerllm_adapters.conversations import Encoded
from byzerllm_trainers.own_partitions import own_partitions
from byzerllm_trainers.packing import IGNORED, Batch, Layout, NothingToLearn, Plan
from byzerllm_trainers.pairs import PairedRows
from byzerllm_trainers.shards import Shards, write_shards

quick = hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
layouts = st.builds(
    Layout, rows=st.integers(1, 4), accumulation=st.integers(1, 3), world=st.integers(1, 3), seed=st.integers(0, 9)
)


def pairs(folder: Path, count: int, silent: int = 0, partitions: list[int] | None = None) -> Shards:
    """Pairs whose tokens are their number, the rejected side's a thousand more; the last ones have no loss."""
    lengths = np.random.default_rng(0).integers(2, 12, (count + silent, 2))
    rows = [
        Encoded([1000 * side + pair] * int(length), [False] + [pair < count] * int(length - 1))
        for pair, both in enumerate(lengths)
        for side, length in enumerate(both)
    ]
    return write_shards(folder / "shards", rows, partitions)


def learned(batch: Batch) -> list[int]:
    """The pairs of a batch; fails where a chosen row is not followed by its own rejected one."""
    rows = [int(labels.max()) for labels in batch.labels if (labels != IGNORED).any()]
    chosen, rejected = rows[::2], rows[1::2]
    assert [pair + 1000 for pair in chosen] == rejected
    return chosen


def of_step(plan: Plan, step: int, world: int) -> list[int]:
    return sorted(pair for rank in range(world) for batch in plan.step(step, rank).batches for pair in learned(batch))


@quick
@given(count=st.integers(1, 40), layout=layouts, grouped=st.booleans())
def test_every_pair_is_used_once_an_epoch_with_both_its_sides(
    tmp_path: Path, count: int, layout: Layout, grouped: bool
) -> None:
    plan = PairedRows(pairs(tmp_path, count, silent=3), layout, grouped=grouped)
    for epoch in (0, 1):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        assert Counter(pair for step in steps for pair in of_step(plan, step, layout.world)) == Counter(range(count))


@quick
@given(count=st.integers(1, 40), layout=layouts)
def test_a_steps_targets_are_its_pairs_over_all_ranks(tmp_path: Path, count: int, layout: Layout) -> None:
    shards = pairs(tmp_path, count, silent=2)
    plan = PairedRows(shards, layout)
    for index in range(plan.steps_per_epoch):
        steps = [plan.step(index, rank) for rank in range(layout.world)]
        used = of_step(plan, index, layout.world)
        assert {step.targets for step in steps} == {len(used)}
        assert {step.tokens for step in steps} == {sum(int(shards.lengths[2 * p : 2 * p + 2].sum()) for p in used)}
        assert all(len(step.batches) == layout.accumulation for step in steps)
        assert all(len(batch.input_ids) <= 2 * layout.rows for step in steps for batch in step.batches)


def test_a_step_holds_the_same_pairs_whatever_the_number_of_ranks(tmp_path: Path) -> None:
    shards = pairs(tmp_path, 30)
    layouts = [Layout(12 // world, 1, world, 3) for world in (1, 2, 3, 4)] + [Layout(2, 3, 2, 3)]
    plans = [(PairedRows(shards, layout), layout.world) for layout in layouts]
    for index in range(plans[0][0].steps_per_epoch):
        assert len({tuple(of_step(plan, index, world)) for plan, world in plans}) == 1


def test_pairs_stay_in_their_partition(tmp_path: Path) -> None:
    shards = pairs(tmp_path, 9, partitions=[0, 6, 18])  # three pairs and six
    plan = own_partitions(shards, Layout(2, 1, 2, 0), PairedRows)
    steps = range(plan.steps_per_epoch)
    own = [sorted(p for s in steps for b in plan.step(s, rank).batches for p in learned(b)) for rank in (0, 1)]
    assert own == [[0, 1, 2], [3, 4, 5, 6, 7, 8]]
    assert sum(plan.counts(step)[0] for step in steps) == 9


def test_nothing_but_pairs_without_a_difference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NothingToLearn, match="no example has a token to learn"):
        PairedRows(pairs(tmp_path, 0, silent=2), Layout(2, 1, 1, 0))
