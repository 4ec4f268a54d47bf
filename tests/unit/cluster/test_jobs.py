import os
from pathlib import Path
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster import jobs
from byzerllm_magics.cluster.jobs import Job
from byzerllm_magics.paths import shown
from tests.unit.cluster.telling import tell, train


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
