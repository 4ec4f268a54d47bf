"""With ``keepPartitionNum`` each rank trains on partitions of its own, and on all of each."""

from collections import Counter
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from byzerllm_adapters.conversations import Encoded
from byzerllm_trainers import recipe
from byzerllm_trainers.corpus import keep_partitions
from byzerllm_trainers.own_partitions import OwnPartitions, own_partitions
from byzerllm_trainers.packing import IGNORED, GroupedRows, Layout, NothingToLearn, PackedStream
from byzerllm_trainers.shards import Shards, open_shards, write_shards
from tests.tiny import instructions

quick = hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
KINDS = {"rows": GroupedRows, "windows": partial(PackedStream, width=4)}


def numbered(folder: Path, sizes: list[int]) -> Shards:
    """One example of two to five tokens a row; the tokens are the row's number, the partitions have these sizes."""
    lengths = np.random.default_rng(0).integers(2, 6, sum(sizes))
    rows = [Encoded([row] * int(length), [True] * int(length)) for row, length in enumerate(lengths)]
    return write_shards(folder / "shards", rows, [0, *accumulate(sizes)])


def learned(plan: OwnPartitions, rank: int, steps: range) -> Counter[int]:
    """How often a rank learns to predict each row's number."""
    batches = [batch for step in steps for batch in plan.step(step, rank).batches]
    return Counter(int(label) for batch in batches for label in batch.labels.ravel() if label != IGNORED)


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(
    sizes=st.lists(st.integers(0, 9), min_size=3, max_size=8).filter(sum),
    rows=st.integers(1, 3),
    accumulation=st.integers(1, 2),
    world=st.integers(1, 3),
)
def test_each_rank_learns_its_own_partitions_once_an_epoch(
    tmp_path: Path, kind: str, sizes: list[int], rows: int, accumulation: int, world: int
) -> None:
    shards = numbered(tmp_path, sizes)
    plan = own_partitions(shards, Layout(rows, accumulation, world, seed=3), KINDS[kind])
    bounds = [0, *accumulate(sizes)]
    share = [bounds[rank * len(sizes) // world] for rank in range(world + 1)]
    for epoch in (0, 1):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        for rank in range(world):
            own = [int(token) for row in range(share[rank], share[rank + 1]) for token in shards.example(row)[0]]
            firsts = own[:1] if kind == "windows" else list(range(share[rank], share[rank + 1]))
            assert learned(plan, rank, steps) == Counter(own) - Counter(firsts)


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(sizes=st.lists(st.integers(0, 9), min_size=3, max_size=5).filter(sum))
def test_all_ranks_agree_on_each_step_and_do_as_many_micro_batches(tmp_path: Path, kind: str, sizes: list[int]) -> None:
    layout = Layout(rows=2, accumulation=2, world=3, seed=0)
    plan = own_partitions(numbered(tmp_path, sizes), layout, KINDS[kind])
    again = own_partitions(open_shards(tmp_path / "shards"), layout, KINDS[kind])
    for index in reversed(range(2 * plan.steps_per_epoch)):
        steps = [plan.step(index, rank) for rank in range(layout.world)]
        targets = sum(int((batch.labels != IGNORED).sum()) for step in steps for batch in step.batches)
        assert targets > 0
        assert {step.targets for step in steps} == {targets}
        assert {step.tokens for step in steps} == {plan.counts(index)[1]}
        assert {len(step.batches) for step in steps} == {layout.accumulation}
        for rank, step in enumerate(steps):
            for one, other in zip(step.batches, again.step(index, rank).batches, strict=True):
                assert np.array_equal(one.input_ids, other.input_ids)
                assert np.array_equal(one.labels, other.labels)


def test_how_long_ranks_wait_for_the_longest_share(tmp_path: Path) -> None:
    plan = own_partitions(numbered(tmp_path, [8, 4, 0, 0]), Layout(1, 1, 4, 0), GroupedRows)
    assert plan.steps_per_epoch == 8
    assert plan.idle_share == pytest.approx(1 - 12 / 32)


def test_partitions_without_anything_to_learn_are_refused(tmp_path: Path) -> None:
    silent = [Encoded([1, 2, 3], [False] * 3)] * 4
    with pytest.raises(NothingToLearn, match="no example has a token to learn"):
        own_partitions(write_shards(tmp_path, silent, [0, 2, 4]), Layout(1, 1, 2, 0), GroupedRows)


@pytest.mark.parametrize("method", ["sft", "sfft"])
def test_a_job_that_keeps_partitions_says_so(make_job: Any, method: str) -> None:
    frame = instructions(12) if method == "sft" else instructions(12).rename(columns={"output": "text"})
    job = make_job(method, pa.Table.from_pandas(frame), workers=2)
    keep_partitions(job.folder, [9, 0, 3])
    found = recipe.find(method)
    counts = found.prepare(job)
    assert open_shards(job.folder.shards).partitions == [0, 9, 9, 12]
    assert counts["partitions"] == 3
    assert isinstance(plan := found.plan(job), OwnPartitions)
    assert counts["percent_idle"] == round(100 * plan.idle_share)


def test_held_out_rows_leave_their_partitions(make_job: Any) -> None:
    job = make_job("sft", pa.Table.from_pandas(instructions(12)), workers=2, eval_ratio=0.5)
    keep_partitions(job.folder, [8, 4])
    recipe.find("sft").prepare(job)
    kept, held_out = open_shards(job.folder.shards), open_shards(job.folder.held_out)
    everything = make_job("sft", pa.Table.from_pandas(instructions(12)))
    recipe.find("sft").prepare(everything)
    whole = open_shards(everything.folder.shards)
    texts = [whole.example(row)[0].tolist() for row in range(12)]
    out = [held_out.example(row)[0].tolist() for row in range(len(held_out))]
    assert (len(kept), len(held_out)) == (6, 6)
    assert kept.partitions == [0, 8 - sum(texts.index(row) < 8 for row in out), 6]
