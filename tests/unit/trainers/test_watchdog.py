"""Who stands still: a worker that does not answer, or one whose number stays the same."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from byzerllm_trainers import watchdog
from byzerllm_trainers.watchdog import Watchdog


class Gang:
    """Ray and its workers, played here; ``answers`` are what each says now, None: nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
        self.now, self.answers = 0.0, [0] * workers
        self.answers: list[int | None]
        monkeypatch.setattr(watchdog.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(
            ray, "wait", lambda asked, timeout: (asked if self.answers[asked[0]] is not None else [], [])
        )
        monkeypatch.setattr(ray, "get", lambda rank: self.answers[rank])
        self.watchdog = Watchdog([self.worker(rank) for rank in range(workers)], seconds=10)

    def worker(self, rank: int) -> Any:
        class Progress:
            def remote(self) -> int:
                return rank

        return type("Worker", (), {"progress": Progress()})()

    def pass_seconds(self, seconds: int, *moving: int) -> str:
        """Let time pass second by second, while some workers get on; return the last look's finding."""
        found = ""
        for _ in range(seconds):
            self.now += 1
            for rank in moving:
                done = self.answers[rank]
                assert done is not None
                self.answers[rank] = done + 1
            found = self.watchdog.look()
        return found


def test_workers_that_get_on_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Gang(monkeypatch, 2).pass_seconds(60, 0, 1) == ""


def test_one_that_does_not_answer_is_named_though_the_others_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gang = Gang(monkeypatch, 3)
    gang.pass_seconds(5, 0, 1, 2)
    gang.answers[1] = None
    assert gang.pass_seconds(9) == ""
    assert gang.pass_seconds(4) == "worker 1 made no progress for 10 s"


def test_of_those_that_answer_the_one_that_is_behind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gang = Gang(monkeypatch, 2)
    gang.pass_seconds(5, 0, 1)
    gang.pass_seconds(1, 0)
    assert gang.pass_seconds(14) == "worker 1 made no progress for 10 s"


def test_a_worker_that_still_loads_is_left_alone_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    gang = Gang(monkeypatch, 2)
    assert gang.pass_seconds(1700, 1) == ""
    assert gang.pass_seconds(200, 1) == "worker 0 made no progress for 1800 s"


def test_a_worker_of_which_nothing_is_expected_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python code has not called its `train` yet, or it saves the result."""
    gang = Gang(monkeypatch, 1)
    gang.answers[0] = -1
    assert gang.pass_seconds(10_000) == ""


def test_a_worker_that_goes_on_in_time_was_only_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    gang = Gang(monkeypatch, 1)
    for _ in range(5):
        assert gang.pass_seconds(8) == ""
        assert gang.pass_seconds(2, 0) == ""
