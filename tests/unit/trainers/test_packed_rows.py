"""Packed conversations: each once an epoch, in little space, and none sees another."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from byzerllm_adapters.conversations import Encoded
from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.loss import NextToken, supervised
from byzerllm_trainers.packed_rows import PackedRows, best_fit, check_isolation
from byzerllm_trainers.packing import IGNORED, Batch, GroupedRows, Layout, NothingToLearn
from byzerllm_trainers.shards import write_shards
from tests.unit.trainers.helpers import examples, load, shards_of, skewed_lengths

quick = hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@given(lengths=st.lists(st.integers(1, 16), max_size=60))
@hypothesis_settings(max_examples=200, deadline=None, database=None)
def test_every_example_is_in_one_row_and_no_row_is_too_long(lengths: list[int]) -> None:
    rows = best_fit(np.array(lengths, np.int64), 16)
    assert sorted(int(i) for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 16 for row in rows)
    assert len(rows) <= 11 / 9 * -(-sum(lengths) // 16) + 6 / 9 + sum(length > 8 for length in lengths)


def test_little_room_is_left(tmp_path: Path) -> None:
    rows = shards_of(tmp_path, examples(np.minimum(skewed_lengths(2000), 512).tolist()))
    plan = PackedRows(rows, Layout(8, 1, 1, 0), 512)
    assert plan.efficiency > 0.98


@quick
@given(
    lengths=st.lists(st.integers(2, 20), min_size=1, max_size=40),
    rows=st.integers(1, 3),
    accumulation=st.integers(1, 2),
    world=st.integers(1, 3),
)
def test_each_conversation_is_learned_once_an_epoch(
    tmp_path: Path, lengths: list[int], rows: int, accumulation: int, world: int
) -> None:
    made = [Encoded([1000 + i] * n, [True] * n) for i, n in enumerate(lengths)]
    plan = PackedRows(write_shards(tmp_path / "s", made), Layout(rows, accumulation, world, seed=1), 24)
    for epoch in (0, 1):
        learned: Counter[int] = Counter()
        for index in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
            steps = [plan.step(index, rank) for rank in range(world)]
            batches = [batch for step in steps for batch in step.batches]
            labels = np.concatenate([batch.labels[batch.labels != IGNORED] for batch in batches])
            assert {step.targets for step in steps} == {len(labels)}
            learned.update(labels.tolist())
        assert learned == {1000 + i: n - 1 for i, n in enumerate(lengths)}


@pytest.mark.parametrize("lora", [False, True])
def test_the_logits_of_a_packed_conversation_are_those_alone(tmp_path: Path, tiny_model: Path, lora: bool) -> None:
    made = examples([40, 7, 23, 12, 31, 18, 9, 26])
    plan = PackedRows(write_shards(tmp_path / "s", made), Layout(8, 1, 1, 0), 64)
    [batch] = plan.step(0, 0).batches
    assert batch.position_ids is not None
    assert len(batch.input_ids) < len(made)
    model = load(tiny_model, lora=lora).eval()
    with torch.no_grad():
        packed = model(
            input_ids=torch.from_numpy(batch.input_ids),
            position_ids=torch.from_numpy(batch.position_ids),
            use_cache=False,
        ).logits
        for ids in (row.ids for row in made):
            [(row, begin)] = [
                (row, begin)
                for row in range(len(batch.input_ids))
                for begin in np.flatnonzero(batch.position_ids[row] == 0)
                if batch.input_ids[row, begin : begin + len(ids) - 1].tolist() == ids[:-1]
            ]
            alone = model(input_ids=torch.tensor([ids[:-1]]), use_cache=False).logits[0]
            torch.testing.assert_close(packed[row, begin : begin + len(ids) - 1], alone, atol=1e-5, rtol=1e-5)


def test_loss_and_gradients_are_those_of_rows_that_are_not_packed(tmp_path: Path, tiny_model: Path) -> None:
    made = examples([40, 7, 23, 12, 31, 18, 9, 26])
    shards = write_shards(tmp_path / "s", made)
    gradients = []
    for plan in (PackedRows(shards, Layout(8, 1, 1, 0), 64), GroupedRows(shards, Layout(8, 1, 1, 0))):
        model = load(tiny_model)
        step = plan.step(0, 0)
        loss = NextToken().summed_loss(model, step.batches[0]) / step.targets
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters())])
    for packed, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-6)


def test_the_attention_of_a_batch_is_of_its_rows_not_of_all_its_tokens(tmp_path: Path, tiny_model: Path) -> None:
    """Attention that costs O(B · L²): what is handed to it has B rows of L, and its mask as many."""
    seen: list[tuple[torch.Size, torch.Size]] = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def spy(query, key, value, attn_mask=None, **options):
        seen.append((query.shape, attn_mask.shape))
        return plain(query, key, value, attn_mask=attn_mask, **options)

    plan = PackedRows(write_shards(tmp_path / "s", examples([12] * 32)), Layout(8, 1, 1, 0), 48)
    [batch] = plan.step(0, 0).batches
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
        supervised(load(tiny_model), batch)
    rows, width = batch.input_ids.shape
    assert (rows, width) == (8, 44)
    assert {(query[0], query[2]) for query, _ in seen} == {(rows, width)}
    assert {(mask[0], *mask[2:]) for _, mask in seen} == {(rows, width, width)}


def test_nothing_to_learn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NothingToLearn, match="no example has a token to learn"):
        PackedRows(write_shards(tmp_path, [Encoded([1, 2], [False, False])]), Layout(1, 1, 1, 0), 8)


def test_a_model_that_does_not_keep_conversations_apart_is_refused(tiny_model: Path) -> None:
    model = load(tiny_model)
    check_isolation(model)
    assert model.training is False
    plain = model.forward
    model.forward = lambda position_ids=None, **inputs: plain(**inputs)
    with pytest.raises(ByzerError, match="does not keep the rows of a pack apart"):
        check_isolation(model)


def test_a_batch_without_positions_is_as_before(tiny_model: Path) -> None:
    model = load(tiny_model)
    ids, labels = np.array([[5, 6, 7]]), np.array([[6, 7, 8]])
    counted = Batch(ids, labels, np.array([[0, 1, 2]]))
    assert NextToken().summed_loss(model, Batch(ids, labels)).item() == NextToken().summed_loss(model, counted).item()
