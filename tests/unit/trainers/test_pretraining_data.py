"""From documents to the batches of every rank: each token is learned once an epoch, and no rank is left waiting."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from byzerllm_trainers import recipe
from byzerllm_trainers.packing import IGNORED, Plan
from byzerllm_trainers.recipe import Job
from byzerllm_trainers.shards import open_shards
from tests.tiny import texts

DOCUMENTS = ["", *texts(23).text, "", "x", *texts(9).text, ""]
WIDTH = 16


def prepared(make_job: Any, documents: list[str], workers: int, **keys: Any) -> tuple[Job, Plan]:
    job = make_job("sfft", pa.table({"text": documents}), workers=workers, max_length=WIDTH, **keys)
    recipe.find("sfft").prepare(job)
    return job, recipe.find("sfft").plan(job)


def learned(plan: Plan, steps: range, workers: int) -> Counter[tuple[int, int]]:
    """How often each token is predicted from the one before it."""
    batches = [batch for step in steps for rank in range(workers) for batch in plan.step(step, rank).batches]
    return Counter(
        (int(here), int(target))
        for batch in batches
        for here, target in zip(batch.input_ids.ravel(), batch.labels.ravel(), strict=True)
        if target != IGNORED
    )


def once(job: Job) -> Counter[tuple[int, int]]:
    """Every pair of tokens in the joined documents."""
    tokens = np.asarray(open_shards(job.folder.shards).tokens).tolist()
    return Counter(pairwise(tokens))


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 4])
def test_every_token_is_learned_once_an_epoch_and_none_is_dropped(make_job: Any, workers: int, rows: int) -> None:
    job, plan = prepared(make_job, DOCUMENTS, workers, per_device_train_batch_size=rows)
    for epoch in range(3):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        assert learned(plan, steps, workers) == once(job)


def test_the_last_window_is_as_short_as_what_is_left(make_job: Any) -> None:
    job, plan = prepared(make_job, DOCUMENTS, 1, per_device_train_batch_size=1)
    tokens = len(open_shards(job.folder.shards).tokens)
    widths = sorted(plan.counts(step)[1] for step in range(plan.steps_per_epoch))
    assert widths == [(tokens - 1) % WIDTH or WIDTH, *[WIDTH] * ((tokens - 2) // WIDTH)]


def test_windows_come_in_another_order_each_epoch_and_for_each_seed(make_job: Any) -> None:
    keys = {"per_device_train_batch_size": 1}
    (_, plan), (_, other) = (prepared(make_job, DOCUMENTS, 1, data_seed=seed, **keys) for seed in (1, 2))

    def order(plan: Plan, epoch: int) -> list[bytes]:
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        return [plan.step(step, 0).batches[0].input_ids.tobytes() for step in steps]

    assert sorted(order(plan, 0)) == sorted(order(plan, 1)) == sorted(order(other, 0))
    assert len({tuple(each) for each in (order(plan, 0), order(plan, 1), order(other, 0))}) == 3


def test_an_epoch_of_fewer_steps_ends_early_and_the_next_goes_on_from_there(make_job: Any) -> None:
    keys = {"per_device_train_batch_size": 1, "steps_per_epoch": 3, "epoches": 2}
    job, plan = prepared(make_job, DOCUMENTS, 1, **keys)
    found = recipe.find("sfft")
    assert found.steps_per_epoch(job, plan) == 3 < plan.steps_per_epoch
    assert recipe.total_steps(found, job, plan) == 6
    windows = {plan.step(step, 0).batches[0].input_ids.tobytes() for step in range(6)}
    assert len(windows) == 6, "the second epoch has windows that the first did not see"


def test_an_epoch_of_more_steps_than_windows_goes_round(make_job: Any) -> None:
    job, plan = prepared(make_job, DOCUMENTS, 1, steps_per_epoch=1000)
    assert recipe.total_steps(recipe.find("sfft"), job, plan) == 1000
    assert plan.step(999, 0).targets > 0


@pytest.mark.parametrize("documents", [["ab"], ["a", "b"], ["", "a", ""]])
def test_fewer_windows_than_ranks_leave_no_rank_waiting(make_job: Any, documents: list[str]) -> None:
    """Every rank has the same number of micro-batches: who has nothing computes without learning."""
    workers = 4
    job, plan = prepared(make_job, documents, workers, gradient_accumulation_steps=2)
    parts = [plan.step(0, rank) for rank in range(workers)]
    assert {len(part.batches) for part in parts} == {2}
    assert len({(part.targets, part.tokens) for part in parts}) == 1
    assert learned(plan, range(plan.steps_per_epoch), workers) == once(job)
