"""Jobs from a cell: listed, shown, waited for, stopped; their folders are the truth."""

import socket
from pathlib import Path
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster import jobs
from byzerllm_magics.session import Session
from byzerllm_trainers import follow
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.001)


@pytest.fixture
def job(tmp_path: Path, own_state: Path) -> JobFolder:
    """A job that this user started, three steps in."""
    parameters = {"pretrainedModelType": "sft/llama", "localModelDir": "/models/tiny"}
    folder = JobFolder(tmp_path / "jobs" / "sft-demo")
    folder.create(JobRequest(parameters, "me", 1, False, 1, 1).as_record())
    series = {"learning_rate": 1e-4, "grad_norm": 0.5, "tokens_per_second": 99.0, "tokens": 10, "seconds": 0.1}
    folder.append("metrics.jsonl", [{"attempt": 1, "step": s, "loss": 1.0 / s, **series} for s in (1, 2, 3)])
    tell(folder, "running", total_steps=4)
    jobs.remember(folder)
    return folder


def tell(folder: JobFolder, name: str, **details: Any) -> None:
    folder.append("events.jsonl", [{"event": name, "time": 100.0, "attempt": 1, **details}])


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes that a cell connected."""
    seen: list[str] = []
    monkeypatch.setattr(Session, "connect", lambda _session: seen.append("connected"))
    return seen


def test_jobs_are_chosen_by_name(run: Any, job: JobFolder) -> None:
    assert run("%byzerllm jobs sft-*").value.name.tolist() == ["sft-demo"]
    assert "no job 'dpo-*'" in run("%byzerllm jobs dpo-*").text


def test_jobs_is_a_table_that_needs_no_cluster(run: Any, job: JobFolder) -> None:
    [row] = run("%byzerllm jobs").value.to_dict("records")
    assert (row["name"], row["state"], row["step"], row["of"]) == ("sft-demo", "running", 3, 4)


def test_a_job_whose_cluster_is_gone_is_lost_and_offers_to_be_resumed(run: Any, job: JobFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        job.take_lease("somebody", cluster=f"127.0.0.1:{server.getsockname()[1]}")
        assert jobs.Job(job).state == "running"
    assert jobs.Job(job).state == "lost"
    shown = run("%byzerllm jobs")
    assert shown.value.to_dict("records")[0]["state"] == "lost"
    assert 'sft-demo lost its cluster: "%byzerllm resume sft-demo" goes on' in shown.text
    assert "Running jobs" not in run("%byzerllm").text


def test_cleaning_up_says_first_what_it_would_remove(run: Any, job: JobFolder) -> None:
    (job.checkpoints / "step-3").mkdir()
    (job.checkpoints / "step-3" / "state.pt").write_bytes(bytes(2**21))
    assert "nothing to remove" in run("%byzerllm jobs --clean").text
    tell(job, "finished", steps=3)
    assert "sft-demo: checkpoints, 2 MiB" in run("%byzerllm jobs --clean").text
    assert list(job.checkpoints.iterdir())
    assert "Removed 2 MiB" in run("%byzerllm jobs --clean --yes").text
    assert not list(job.checkpoints.iterdir())


def test_the_overview_names_running_jobs(run: Any, job: JobFolder) -> None:
    assert "Running jobs: sft-demo" in run("%byzerllm").text
    tell(job, "finished")
    assert "Running jobs" not in run("%byzerllm").text


def test_attaching_to_an_ended_job_shows_it_without_a_cluster(
    run: Any, shell: Any, job: JobFolder, connected: list[str]
) -> None:
    tell(job, "finished", steps=3)
    ran = run("%byzerllm attach sft-demo -o mine")
    assert ran.error is None, ran.text
    assert "sft-demo" in ran.text
    assert "finished" in ran.text
    assert shell.user_ns["mine"].folder.root == job.root
    assert connected == []


def test_waiting_for_an_ended_job_prints_how_it_ended(run: Any, job: JobFolder, connected: list[str]) -> None:
    tell(job, "finished", steps=3, seconds=1.25)
    ran = run("%byzerllm wait sft-demo")
    assert ran.text.startswith("Job sft-demo finished: 3 steps in 1.2 s, loss 1 → 0.3333.")
    assert connected == []


def test_waiting_says_which_step_the_model_is_of_if_it_is_not_the_last(
    run: Any, job: JobFolder, connected: list[str]
) -> None:
    job.model.mkdir()
    tell(job, "finished", steps=3, model_step=2, seconds=1.25)
    assert "Model of step 2, the best: " in run("%byzerllm wait sft-demo").text


def test_waiting_for_a_failed_job_is_the_jobs_error(run: Any, job: JobFolder) -> None:
    error = ByzerError("the loss became nan at step 4", where="rank 0", do="lower the learning rate")
    tell(job, "failed", error=error.render())
    ran = run("%byzerllm wait sft-demo")
    assert ran.lines == [
        "ByzerError: job sft-demo failed: the loss became nan at step 4",
        "rank 0",
        "→ lower the learning rate",
    ]


def test_interrupting_leaves_the_job_running_and_is_no_error(
    run: Any, job: JobFolder, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow.time, "sleep", interrupted)
    ran = run("%byzerllm wait sft-demo")
    assert ran.error is None
    assert ran.text == 'Not waiting any more: job sft-demo runs on. "%byzerllm stop sft-demo" ends it.\n'
    assert connected == ["connected"]


def test_logs_are_printed(run: Any, job: JobFolder) -> None:
    (job.logs / "rank-0.log").write_text("one\ntwo\nthree\n")
    assert run("%byzerllm logs sft-demo --rank 0 -n 2").lines == ["── rank-0.log", "two", "three"]


def test_stopping_asks_the_coordinator(
    run: Any, job: JobFolder, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(jobs.Job, "stop", lambda job, now: asked.append((job.name, now)))
    ran = run("%byzerllm stop sft-demo")
    assert asked == [("sft-demo", False)]
    assert ran.text.startswith("Job sft-demo saves a checkpoint and ends")
    assert '"%byzerllm resume sft-demo" goes on with it' in ran.text
    assert connected == ["connected"]
    assert "ends now, with no checkpoint: it has saved none" in run("%byzerllm stop sft-demo --now").text
    assert asked[1:] == [("sft-demo", True)]


def test_a_resumed_job_is_shown_as_going_on(
    run: Any, job: JobFolder, connected: list[str], monkeypatch: pytest.MonkeyPatch, shell: Any
) -> None:
    tell(job, "stopped", steps=3)
    asked: list[dict[str, Any]] = []

    def resume(job: jobs.Job, **changes: Any) -> None:
        asked.append(changes)
        tell(job.folder, "restarting", message="from step 2")

    monkeypatch.setattr(jobs.Job, "resume", resume)
    ran = run("%byzerllm resume sft-demo --epochs 3 --workers 2 -o mine")
    assert asked == [{"epochs": 3.0, "max_steps": None, "workers": 2}]
    assert ran.error is None, ran.text
    assert shell.user_ns["mine"].state == "restarting"
    tell(job, "finished", steps=9)
    assert "Job sft-demo finished" in run("%byzerllm wait sft-demo").text


def test_a_finished_job_is_not_resumed_and_the_error_says_how_to_train_on(
    run: Any, job: JobFolder, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(job, "finished", steps=3)
    monkeypatch.setattr(jobs, "is_connected", lambda: True)
    ran = run("%byzerllm resume sft-demo")
    assert ran.lines[0] == "ByzerError: job sft-demo has finished: 3 steps"
    assert '"%byzerllm resume sft-demo --epochs N" trains on' in ran.lines[-1]


@pytest.mark.parametrize(
    ("cell", "waits"),
    [
        ("%%byzerllm run", False),
        ("%%byzerllm run --wait", True),
        ('%%byzerllm run\ndetached="false"', True),
        ('%%byzerllm run\ndetached="true"', False),
    ],
)
def test_a_training_cell_waits_only_when_asked_to(
    run: Any, shell: Any, job: JobFolder, monkeypatch: pytest.MonkeyPatch, cell: str, waits: bool
) -> None:
    from byzerllm_magics import live
    from byzerllm_magics.magics import run as module

    shown: list[str] = []
    waited: list[str] = []
    monkeypatch.setattr(
        Session, "run", lambda _session, keys, **_: jobs.Job(job, detached=keys.get("detached") != "false")
    )
    monkeypatch.setattr(live.JobView, "show", lambda view: shown.append(view._job.name))
    monkeypatch.setattr(module, "wait_for", lambda job: waited.append(job.name))
    head, _, keys = cell.partition("\n")
    ran = run(f'{head} -o job\npretrainedModelType="sft/llama"\n{keys}\n')
    assert ran.error is None, ran.text
    assert ran.value is None
    assert shown == ["sft-demo"]
    assert waited == (["sft-demo"] if waits else [])
    assert shell.user_ns["job"].name == "sft-demo"
