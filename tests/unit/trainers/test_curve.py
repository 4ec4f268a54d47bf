"""The columns of a job's steps are its records, whoever wrote them and however often it was looked."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from byzerllm_trainers import curve
from byzerllm_trainers.curve import Curve
from byzerllm_trainers.job_folder import Record, extend_steps


def record(attempt: int, step: int, **numbers: float) -> Record:
    return {"attempt": attempt, "step": step, "loss": step / 7, "learning_rate": 1e-3, "grad_norm": 1.0} | {
        "tokens_per_second": 100.0 * attempt,
        "tokens": 3,
        **numbers,
    }


def written(path: Path, records: list[Record]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in records)


@pytest.fixture(params=[1, 1 << 30], ids=["arrow", "python"], autouse=True)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "LARGE", request.param)
    monkeypatch.setattr(curve, "BLOCK", 10_000)  # some seventy lines


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_the_records_say_however_often_it_looks(tmp_path: Path, seed: int) -> None:
    """Attempts that go back, and one without the lease that still writes."""
    chance = random.Random(seed)
    records: list[Record] = []
    attempt, step = 1, 0
    for _ in range(300):
        if chance.random() < 0.03:
            attempt, step = attempt + 1, chance.randrange(step + 1)
        step += 1
        old = attempt > 1 and chance.random() < 0.05
        numbers = {"eval_loss": float(step)} if chance.random() < 0.1 else {}
        records.append(record(attempt - old, step, **numbers))
    path, expected = tmp_path / "metrics.jsonl", list[Record]()
    extend_steps(expected, records)
    looks = Curve(path)
    assert not looks.advance()
    for begin in range(0, 300, 70):
        written(path, records[begin : begin + 70])
        assert looks.advance()
        assert not looks.advance()
    once = Curve(path)
    once.advance()
    for found in (looks, once):
        assert len(found) == len(expected)
        for name, column in found.columns.items():
            np.testing.assert_array_equal(column, [each.get(name, math.nan) for each in expected])
    if not (evaluated := [each for each in expected if "eval_loss" in each]):
        assert looks.eval_loss(None) is None
        return
    assert looks.eval_loss(None) == evaluated[-1]["eval_loss"]
    assert looks.eval_loss(evaluated[0]["step"]) == evaluated[0]["eval_loss"]


def test_a_norm_that_is_not_finite_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written(path, [record(1, 1, grad_norm=math.inf), record(1, 2, grad_norm=math.nan), record(1, 3)])
    found = Curve(path)
    found.advance()
    np.testing.assert_array_equal(found.columns["grad_norm"], [math.inf, math.nan, 1.0])
    assert found.eval_loss(None) is None
