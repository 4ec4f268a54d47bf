"""A view of a job follows its folder."""

from typing import Any

import numpy as np
import pytest

from byzerllm_magics.cluster import job_watch
from byzerllm_magics.cluster.job_watch import JobWatch
from byzerllm_magics.cluster.jobs import Job
from tests.unit.cluster.telling import tell, train


def test_a_watch_follows_a_job_from_its_start_to_its_end(make_folder: Any) -> None:
    folder = make_folder()
    watch = JobWatch(folder)
    state = watch.look()
    assert (state.name, state.method, state.workers, state.state) == ("job", "sft", 2, "preparing")
    assert (state.started, state.points()) == (None, 0)

    tell(folder, "preparing", message="tokenising")
    assert (watch.look().message, state.started) == ("tokenising", 100.0)
    dropped = {"rows_dropped": 1000, "first_dropped": "row 3 (format alpaca): output is missing"}
    tell(folder, "prepared", format="alpaca", examples=1200, examples_cut_off=0, **dropped, tokens=45_000)
    assert watch.look().message == (
        "format alpaca, 1,200 examples, 1,000 rows dropped, first dropped row 3 (format alpaca): output is missing, "
        "45,000 tokens"
    )
    tell(folder, "prepared", examples=1200, tokens=45_000, reused="job-1")
    assert watch.look().message == "1,200 examples, 45,000 tokens, tokenised before by job-1"
    tell(folder, "starting", message="placing 2 workers")
    assert (watch.look().state, state.message) == ("starting", "placing 2 workers")

    tell(folder, "running", total_steps=20, parameters=5, trainable=1)
    train(folder, range(1, 11))
    tell(folder, "checkpoint", step=10)
    watch.look()
    assert (state.state, state.message, state.step, state.total_steps) == ("running", "", 10, 20)
    assert (state.checkpoints, state.attempt, state.active) == ([10], 1, True)

    train(folder, range(11, 21), loss=0.5)
    tell(folder, "finished", time=130.0, steps=20)
    watch.look()
    assert (state.state, state.active, state.step, state.last("loss")) == ("finished", False, 20, 0.5)
    assert state.elapsed(999.0) == 30.0
    assert {name: values.dtype.kind for name, values in state.series.items()} == {
        "step": "i", "loss": "f", "learning_rate": "f", "grad_norm": "f", "tokens_per_second": "f",
    }  # fmt: skip


def test_a_new_attempt_takes_the_curve_back_to_its_checkpoint(make_folder: Any) -> None:
    folder = make_folder()
    watch = JobWatch(folder)
    tell(folder, "running", total_steps=30)
    train(folder, range(1, 16))
    tell(folder, "checkpoint", step=10)
    watch.look()
    tell(folder, "loss", message="worker 1 died; ending what is left of the gang")
    state = watch.look()
    assert (state.state, state.message) == ("restarting", "worker 1 died; ending what is left of the gang")
    tell(folder, "restarting", attempt=2, message="worker 1 died; going on from the last checkpoint")
    state = watch.look()
    assert (state.state, state.attempt, state.active) == ("restarting", 2, True)
    assert state.message.startswith("worker 1 died")
    tell(folder, "running", attempt=2, total_steps=30)
    train(folder, range(11, 13), attempt=2, loss=7.0)
    train(folder, range(16, 17), attempt=1, loss=9.0)  # a lost rank's late line
    watch.look()
    assert (state.step, state.message) == (12, "")
    assert state.series["step"].tolist() == list(range(1, 13))
    assert state.series["loss"].tolist() == [1.0] * 10 + [7.0, 7.0]


def test_a_watch_that_comes_later_sees_the_same(make_folder: Any) -> None:
    folder = make_folder()
    early = JobWatch(folder)
    for attempt, steps in ((1, range(1, 16)), (2, range(11, 13))):
        tell(folder, "running", attempt=attempt, total_steps=30)
        train(folder, steps, attempt=attempt)
        early.look()
    tell(folder, "stopped", attempt=2, steps=12)
    one, other = early.look(), JobWatch(folder).look()
    assert (one.state, one.step, one.attempt) == (other.state, other.step, other.attempt) == ("stopped", 12, 2)
    assert all(np.array_equal(one.series[name], other.series[name]) for name in one.series)
    assert one.series["step"].tolist() == [record["step"] for record in folder.metrics()]


def test_a_failed_job_shows_the_first_line_of_its_error(make_folder: Any) -> None:
    folder = make_folder()
    tell(folder, "failed", error=["ByzerError: the loss became nan at step 4", "→ lower the learning rate"])
    state = JobWatch(folder).look()
    assert (state.state, state.message) == ("failed", "ByzerError: the loss became nan at step 4")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_watch, "LIVENESS_SECONDS", -1.0)


@pytest.mark.usefixtures("impatient")
def test_a_silent_job_whose_coordinator_is_gone_has_failed(make_folder: Any) -> None:
    folder = make_folder()
    tell(folder, "running", total_steps=20)
    alive = [True]
    watch = JobWatch(folder, lambda _name: alive[0])
    watch.look()
    assert watch.look().state == "running"
    alive[0] = False
    state = watch.look()
    assert (state.state, state.active) == ("failed", False)
    assert "coordinator is gone" in state.message


@pytest.mark.usefixtures("impatient")
def test_a_job_that_ended_as_its_coordinator_left_has_not_failed(make_folder: Any) -> None:
    folder = make_folder()
    tell(folder, "running", total_steps=20)

    def leaves(_name: str) -> bool:
        tell(folder, "finished", steps=20)
        return False

    watch = JobWatch(folder, leaves)
    watch.look()
    watch.look()
    assert watch.look().state == "finished"


def test_a_job_whose_best_model_is_not_the_last_says_which_it_is(make_folder: Any) -> None:
    folder = make_folder()
    train(folder, range(1, 21))
    tell(folder, "finished", steps=20, model_step=10, message="no better evaluation for 2 evaluations")
    assert JobWatch(folder).look().message.endswith("; the model is that of step 10, the best")


def test_the_newest_answers_to_the_users_prompts_are_shown(make_folder: Any) -> None:
    folder = make_folder()
    watch = JobWatch(folder)
    assert watch.look().samples == []
    for attempt, step in ((1, 10), (1, 20), (2, 15)):
        answers = [{"attempt": attempt, "step": step, "prompt": p, "answer": f"{p}!"} for p in ("a", "b")]
        folder.append("samples.jsonl", answers)
        assert watch.look().samples == answers
    assert Job(folder).samples().step.tolist() == [10, 10, 20, 20, 15, 15]
