from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from byzerllm_adapters.conversations import Encoded
from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.packing import IGNORED, Batch, GroupedRows, Layout, PackedStream, Plan
from byzerllm_trainers.shards import Longs, Shards, write_shards
from tests.unit.trainers.helpers import examples, skewed_lengths

Make = Callable[[Sequence[Encoded]], Shards]

quick = hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
layouts = st.builds(
    Layout, rows=st.integers(1, 4), accumulation=st.integers(1, 3), world=st.integers(1, 3), seed=st.integers(0, 9)
)


@pytest.fixture
def shards(tmp_path: Path) -> Make:
    return lambda rows: write_shards(tmp_path / "shards", rows)


def distinct(count: int, longest: int = 12) -> list[Encoded]:
    """Examples that are told apart by their first token; every second one's first token has the loss, too."""
    random = np.random.default_rng(0)
    lengths = random.integers(2, longest, count)
    return [Encoded([1000 + i] * int(n), [i % 2 == 0] + [True] * int(n - 1)) for i, n in enumerate(lengths)]


def rows_of(batch: Batch) -> list[tuple[Longs, Longs]]:
    """The rows that are learned from, without their padding."""
    found = []
    for ids, labels in zip(batch.input_ids, batch.labels, strict=True):
        learned = np.flatnonzero(labels != IGNORED)
        if len(learned):
            found.append((ids[: learned[-1] + 1], labels[: learned[-1] + 1]))
    return found


def heads(plan: Plan, step: int, ranks: int) -> list[int]:
    """The first token of every row that a step learns from, over all ranks."""
    batches = [batch for rank in range(ranks) for batch in plan.step(step, rank).batches]
    return sorted(int(ids[0]) for batch in batches for ids, _ in rows_of(batch))


@quick
@given(count=st.integers(1, 60), layout=layouts)
def test_every_supervised_example_is_used_once_an_epoch(shards: Make, count: int, layout: Layout) -> None:
    silent = [Encoded([5, 6, 7], [False, False, False])]
    plan = GroupedRows(shards(distinct(count) + silent), layout)
    for epoch in (0, 1):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        used = Counter(head for step in steps for head in heads(plan, step, layout.world))
        assert used == Counter(range(1000, 1000 + count))


@quick
@given(count=st.integers(1, 60), layout=layouts)
def test_a_step_is_a_function_of_its_number_and_rank(shards: Make, count: int, layout: Layout) -> None:
    """Asked in another order by another process, as after a restart."""
    made = shards(distinct(count))
    for kind in (lambda: GroupedRows(made, layout), lambda: PackedStream(made, layout, 8)):
        plan, again = kind(), kind()
        steps = range(2 * plan.steps_per_epoch)
        forwards = {(s, r): plan.step(s, r) for s in steps for r in range(layout.world)}
        for (step, rank), one in reversed(forwards.items()):
            other = again.step(step, rank)
            assert (one.targets, one.tokens) == (other.targets, other.tokens)
            for a, b in zip(one.batches, other.batches, strict=True):
                assert np.array_equal(a.input_ids, b.input_ids)
                assert np.array_equal(a.labels, b.labels)


def test_epochs_and_seeds_differ_in_order(shards: Make) -> None:
    made = shards(distinct(64))
    plan, other = (GroupedRows(made, Layout(rows=4, accumulation=1, world=1, seed=seed)) for seed in (0, 1))
    first = [heads(plan, step, 1) for step in range(plan.steps_per_epoch)]
    second = [heads(plan, step + plan.steps_per_epoch, 1) for step in range(plan.steps_per_epoch)]
    assert first != second
    assert first != [heads(other, step, 1) for step in range(other.steps_per_epoch)]


@pytest.mark.parametrize("kind", ["rows", "stream"])
def test_a_step_holds_the_same_rows_whatever_the_number_of_ranks(shards: Make, kind: str) -> None:
    made = shards(distinct(50))
    layouts = [Layout(12 // world, 1, world, 3) for world in (1, 2, 3, 4)] + [Layout(2, 3, 2, 3)]
    plans = [GroupedRows(made, each) if kind == "rows" else PackedStream(made, each, 8) for each in layouts]
    for step in range(plans[0].steps_per_epoch):
        seen = {tuple(heads(plan, step, layout.world)) for plan, layout in zip(plans, layouts, strict=True)}
        assert len(seen) == 1
        assert len({(plan.step(step, 0).targets, plan.step(step, 0).tokens) for plan in plans}) == 1


@quick
@given(count=st.integers(1, 40), layout=layouts)
def test_counts_are_those_of_the_batches_of_all_ranks(shards: Make, count: int, layout: Layout) -> None:
    made = shards(distinct(count))
    for plan in (GroupedRows(made, layout), PackedStream(made, layout, 8)):
        for step in range(plan.steps_per_epoch):
            parts = [plan.step(step, rank) for rank in range(layout.world)]
            assert {(part.targets, part.tokens) for part in parts} == {(parts[0].targets, parts[0].tokens)}
            batches = [batch for part in parts for batch in part.batches]
            assert sum((batch.labels != IGNORED).sum() for batch in batches) == parts[0].targets
            rows = [row for batch in batches for row in rows_of(batch)]
            last = 1 if isinstance(plan, GroupedRows) else 0  # a row's last token is a target, but no input
            assert sum(len(ids) + last for ids, _ in rows) == parts[0].tokens
            assert all(len(part.batches) == layout.accumulation for part in parts)
            assert all(len(batch.input_ids) <= layout.rows for batch in batches)


@quick
@given(tokens=st.integers(2, 200), width=st.integers(1, 16), layout=layouts)
def test_a_stream_predicts_every_token_but_the_first_from_the_one_before(
    shards: Make, tokens: int, width: int, layout: Layout
) -> None:
    ids = list(range(1, tokens + 1))
    half = tokens // 2
    made = shards([Encoded(part, [True] * len(part)) for part in (ids[:half], ids[half:]) if part])
    plan = PackedStream(made, layout, width)
    pairs = [
        (int(here), int(target))
        for step in range(plan.steps_per_epoch)
        for rank in range(layout.world)
        for batch in plan.step(step, rank).batches
        for row, labels in zip(batch.input_ids, batch.labels, strict=True)
        for here, target in zip(row, labels, strict=True)
        if target != IGNORED
    ]
    assert sorted(pairs) == [(token, token + 1) for token in ids[:-1]]


def test_labels_are_what_follows_and_only_where_the_loss_applies(shards: Make) -> None:
    made = shards([Encoded([11, 12, 13, 14], [False, False, True, True]), Encoded([21, 22], [False, True])])
    [batch] = GroupedRows(made, Layout(rows=2, accumulation=1, world=1, seed=0)).step(0, 0).batches
    assert batch.input_ids.tolist() == [[11, 12, 13], [21, 0, 0]]
    assert batch.labels.tolist() == [[IGNORED, 13, 14], [22, IGNORED, IGNORED]]


def test_a_rank_without_rows_computes_one_row_that_teaches_nothing(shards: Make) -> None:
    made = shards(distinct(3))
    for plan in (GroupedRows(made, Layout(2, 2, 2, 0)), PackedStream(made, Layout(8, 2, 2, 0), 8)):
        batches = [batch for rank in (0, 1) for batch in plan.step(0, rank).batches]
        idle = [batch for batch in batches if (batch.labels == IGNORED).all()]
        assert len(idle) == 2  # the second micro-batch of both
        assert all(len(batch.input_ids) == 1 for batch in idle)


@pytest.mark.parametrize("world", [1, 2])
def test_little_of_a_step_is_padding_on_skewed_lengths(shards: Make, world: int) -> None:
    plan = GroupedRows(shards(examples(skewed_lengths(2000))), Layout(rows=8, accumulation=1, world=world, seed=0))
    steps = [plan.step(step, rank) for step in range(plan.steps_per_epoch) for rank in range(world)]
    computed = sum(batch.input_ids.size for step in steps for batch in step.batches)
    real = sum(step.tokens for step in steps) / world
    assert real / computed >= 0.9


def test_data_without_anything_to_learn_is_refused(shards: Make) -> None:
    layout = Layout(1, 1, 1, 0)
    for rows in ([], [Encoded([1, 2], [True, False])]):
        with pytest.raises(ByzerError, match="no example has a token to learn"):
            GroupedRows(shards(rows), layout)
    for rows in ([], [Encoded([1], [True])]):
        with pytest.raises(ByzerError, match="no tokens to train on"):
            PackedStream(shards(rows), layout, 8)
