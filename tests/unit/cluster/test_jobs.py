import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster import jobs
from byzerllm_magics.cluster.jobs import Job, JobWatch
from byzerllm_magics.paths import shown
from byzerllm_trainers.job_folder import JobFolder


def tell(folder: JobFolder, name: str, attempt: int = 1, time: float = 100.0, **details: Any) -> None:
    folder.append("events.jsonl", [{"event": name, "time": time, "attempt": attempt, **details}])


def train(folder: JobFolder, steps: range, attempt: int = 1, loss: float = 1.0) -> None:
    series = {"learning_rate": 1e-4, "grad_norm": 0.5, "tokens_per_second": 99.0, "tokens": 10, "seconds": 0.1}
    folder.append("metrics.jsonl", [{"attempt": attempt, "step": s, "loss": loss, **series} for s in steps])


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
    monkeypatch.setattr(jobs, "LIVENESS_SECONDS", -1.0)


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


def test_jobs_are_found_by_name_in_any_folder_the_newest_first(
    make_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, name in enumerate(("old", "new")):
        folder = make_folder(name, where=f"place-{name}")
        os.utime(folder.root / "job.json", (1000 + age, 1000 + age))
        jobs.remember(folder)
    gone = make_folder("gone")
    jobs.remember(gone)
    (gone.root / "job.json").unlink()
    monkeypatch.chdir(tmp_path)
    assert [job.name for job in jobs.listed()] == ["new", "old"]
    assert jobs.find("old").folder.root == tmp_path / "place-old" / "old"


def test_a_path_means_the_job_at_that_path(make_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though another job of the same name is known."""
    jobs.remember(make_folder("job", where="here"))
    other = make_folder("job", where="there")
    monkeypatch.chdir(tmp_path)
    for path in (str(other.root), "there/job", "./there/job"):
        assert jobs.find(path).folder.root.resolve() == other.root
    assert jobs.find("job").folder.root == tmp_path / "here" / "job"


def test_a_job_in_the_usual_folder_is_found_though_nobody_remembers_it(
    make_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder("copied", where="jobs")
    monkeypatch.chdir(tmp_path)
    assert jobs.find("copied").name == "copied"


def test_an_unknown_job_is_an_error_with_the_nearest_name(make_folder: Any) -> None:
    jobs.remember(make_folder("sft-demo"))
    with pytest.raises(ByzerError, match="no job 'sft-dmeo'") as caught:
        jobs.find("sft-dmeo")
    assert (caught.value.where, caught.value.do) == ("known: sft-demo", 'did you mean "sft-demo"?')


def test_waiting_returns_the_result_row(make_folder: Any) -> None:
    folder = make_folder()
    train(folder, range(1, 4))
    tell(folder, "finished", steps=3, seconds=1.5)
    row = Job(folder).wait()
    assert (row["name"], row["status"], row["steps"], row["tokens"], row["seconds"]) == ("job", "finished", 3, 30, 1.5)


def test_stopping_without_a_connection_says_so_and_starts_no_cluster(make_folder: Any) -> None:
    import ray

    with pytest.raises(ByzerError, match="no cluster is running"):
        Job(make_folder()).stop()
    assert not ray.is_initialized()


def test_stopping_a_job_that_does_not_run_says_what_it_is(make_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def nobody(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(jobs, "is_connected", lambda: True)
    monkeypatch.setattr(ray, "get_actor", nobody)
    folder = make_folder()
    tell(folder, "finished")
    with pytest.raises(ByzerError, match="is not running: it is finished"):
        Job(folder).stop()


def test_logs_are_the_last_lines_of_each_process(make_folder: Any) -> None:
    folder = make_folder()
    job = Job(folder)
    with pytest.raises(ByzerError, match="has no log yet"):
        job.logs()
    (folder.logs / "rank-0.log").write_text("a\nb\nc\n")
    (folder.logs / "coordinator.log").write_bytes(b"one\n\xff\xfetwo\n")
    assert job.logs(rank=0, lines=2) == "── rank-0.log\nb\nc"
    assert job.logs(lines=1).splitlines()[::2] == ["── coordinator.log", "── rank-0.log"]
    with pytest.raises(ByzerError, match="of rank 3"):
        job.logs(rank=3)


def test_metrics_are_a_frame(make_folder: Any) -> None:
    folder = make_folder()
    train(folder, range(1, 4))
    tell(folder, "running", total_steps=8)
    job = Job(folder)
    assert job.metrics()["step"].tolist() == [1, 2, 3]
    assert repr(job) == f"Job('job', running, {shown(folder.root)})"


def test_jobs_of_one_name_in_two_folders_are_both_known_and_the_newest_is_meant(make_folder: Any) -> None:
    older, newer = make_folder(where="first"), make_folder(where="second")
    os.utime(older.root / "job.json", (1, 1))
    jobs.remember(newer)
    jobs.remember(older)
    assert [job.folder.root for job in jobs.listed()] == [newer.root, older.root]
    assert jobs.find("job").folder.root == newer.root
    assert jobs.find(str(older.root)).folder.root == older.root
