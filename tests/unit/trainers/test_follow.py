import socket
from pathlib import Path

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import follow
from byzerllm_trainers.follow import Cursor
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest


def event(name: str, **details: object) -> dict[str, object]:
    return {"event": name, "time": 0.0, "attempt": 1, **details}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.001)


def test_a_cursor_reads_each_line_once(folder: JobFolder) -> None:
    cursor = Cursor(folder.root / "events.jsonl")
    assert cursor.advance() == []
    folder.append("events.jsonl", [event("preparing"), event("running")])
    assert [e["event"] for e in cursor.advance()] == ["preparing", "running"]
    assert cursor.advance() == []
    folder.append("events.jsonl", [event("checkpoint")])
    assert [e["event"] for e in cursor.advance()] == ["checkpoint"]


def test_a_cursor_waits_for_the_rest_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    line = '{"event": "工人"}\n'.encode()
    path.write_bytes(line + line[:12])
    cursor = Cursor(path)
    assert cursor.advance() == [{"event": "工人"}]
    assert cursor.advance() == []
    with path.open("ab") as handle:
        handle.write(line[12:])
    assert cursor.advance() == [{"event": "工人"}]


def test_a_cursor_goes_on_behind_a_torn_line_that_was_dropped(folder: JobFolder) -> None:
    """It neither reads anything twice nor misses what the next attempt writes."""
    folder.append("events.jsonl", [event("running")])
    with (folder.root / "events.jsonl").open("ab") as handle:
        handle.write(b'{"event": "checkpo')
    cursor = Cursor(folder.root / "events.jsonl")
    assert [e["event"] for e in cursor.advance()] == ["running"]
    folder.take_lease("next")
    assert cursor.advance() == []
    folder.append("events.jsonl", [event("restarting")])
    assert [e["event"] for e in cursor.advance()] == ["restarting"]


def test_waiting_returns_the_final_event(folder: JobFolder) -> None:
    looks = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            folder.append("events.jsonl", [event("finished", steps=7)])

    assert follow.wait(folder, look)["steps"] == 7
    assert len(looks) == 4  # once more after the end: a view shows it


def test_waiting_says_what_the_job_itself_waits_for(folder: JobFolder) -> None:
    message = "waiting for 2 CPU (0 free): held by job other"
    folder.append("events.jsonl", [event("starting", message="placing 2 workers")])
    folder.append("events.jsonl", [event("starting", message=message, waiting=True), event("stopped", steps=0)])
    told: list[str] = []
    follow.wait(folder, tell=told.append)
    assert told == [f"job {folder.name} is {message}"]


def test_waiting_for_a_stopped_job_is_no_error(folder: JobFolder) -> None:
    folder.append("events.jsonl", [event("running"), event("stopped")])
    assert follow.wait(folder)["event"] == "stopped"


def test_waiting_for_a_resumed_job_waits_for_its_new_end(folder: JobFolder) -> None:
    folder.append("events.jsonl", [event("running"), event("stopped"), event("restarting")])
    looks = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            folder.append("events.jsonl", [event("finished", steps=7)])

    assert follow.wait(folder, look)["steps"] == 7


def test_waiting_raises_the_jobs_own_error(folder: JobFolder) -> None:
    original = ByzerError("the loss became nan at step 4", where="rank 1", do="lower the learning rate")
    folder.append("events.jsonl", [event("failed", error=original.render())])
    with pytest.raises(ByzerError) as caught:
        follow.wait(folder)
    assert caught.value.what == "job job failed: the loss became nan at step 4"
    assert (caught.value.where, caught.value.do) == ("rank 1", "lower the learning rate")


def test_waiting_for_a_job_whose_coordinator_is_gone_says_so(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "is_alive", lambda _folder: False)
    with pytest.raises(ByzerError, match="its coordinator is gone") as caught:
        follow.wait(folder)
    assert caught.value.do.startswith('"%byzerllm resume job" goes on from its last checkpoint')


def test_a_job_that_ended_while_its_coordinator_left_has_ended(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaves(_folder: JobFolder) -> bool:
        folder.append("events.jsonl", [event("finished")])
        return False

    monkeypatch.setattr(follow, "is_alive", leaves)
    assert follow.wait(folder)["event"] == "finished"


def test_without_a_connection_nobody_is_called_dead_and_no_cluster_starts(folder: JobFolder) -> None:
    import ray

    assert follow.is_alive(folder)
    assert not ray.is_initialized()


def test_a_job_is_dead_where_nothing_listens_at_its_clusters_address(folder: JobFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        folder.take_lease("somebody", cluster=f"127.0.0.1:{server.getsockname()[1]}")
        assert follow.is_alive(folder)
    assert not follow.is_alive(folder)
    folder.take_lease("somebody", cluster="nowhere.invalid:6379")  # it cannot be asked
    assert follow.is_alive(folder)


@pytest.fixture
def asked(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "asked")
    parameters = {"pretrainedModelType": "sft/llama", "localModelDir": "/models/tiny"}
    request = JobRequest(parameters, owner="me", workers=1, gpu=False, cpus_per_worker=1, threads_per_worker=1)
    folder.create(request.as_record())
    return folder


def test_a_result_row_sums_up_what_a_job_did(asked: JobFolder) -> None:
    asked.append("metrics.jsonl", [{"attempt": 1, "step": s, "loss": 1 / s, "tokens": 10} for s in (1, 2, 4)])
    asked.append(
        "events.jsonl",
        [event("running", precision="nf4, computed in bf16"), event("finished", seconds=3.5, model_step=4)],
    )
    asked.model.mkdir()
    row = follow.result_row(asked)
    assert row.pop("started").timestamp() == asked.events()[0]["time"]
    assert row == {
        "name": "asked",
        "status": "finished",
        "error": None,
        "owner": "me",
        "method": "sft/llama",
        "base": "/models/tiny",
        "model": str(asked.model),
        "folder": str(asked.root),
        "workers": 1,
        "precision": "nf4, computed in bf16",
        "steps": 4,
        "tokens": 30,
        "first_loss": 1.0,
        "last_loss": 0.25,
        "eval_loss": None,
        "eval_accuracy": None,
        "seconds": 3.5,
    }


@pytest.mark.parametrize(("ended", "loss"), [({"model_step": 2}, 0.3), ({"model_step": 5}, 0.7), ({}, 0.7)])
def test_a_result_row_has_the_evaluation_of_the_model_it_ended_with(
    asked: JobFolder, ended: dict[str, int], loss: float
) -> None:
    steps = [{"attempt": 1, "step": s, "loss": 1.0, "tokens": 1} for s in range(1, 6)]
    steps[1] |= {"eval_loss": 0.3, "eval_accuracy": 0.9}
    steps[3] |= {"eval_loss": 0.7, "eval_accuracy": 0.5}
    asked.append("metrics.jsonl", steps)
    asked.append("events.jsonl", [event("running"), event("finished", **ended)])
    assert follow.result_row(asked)["eval_loss"] == loss


def test_a_result_row_of_a_failed_job_says_why(asked: JobFolder) -> None:
    asked.append("events.jsonl", [event("running"), event("failed", error=["no room", "→ add nodes"])])
    row = follow.result_row(asked)
    assert (row["status"], row["error"]) == ("failed", "no room")


def test_a_result_row_of_a_resumed_job_says_that_it_runs(asked: JobFolder) -> None:
    asked.append("events.jsonl", [event("running"), event("failed", error=["no room"]), event("restarting")])
    row = follow.result_row(asked)
    assert (row["status"], row["error"]) == ("running", None)


def test_a_result_row_of_a_job_that_only_began_has_nothing_in_it(asked: JobFolder) -> None:
    row = follow.result_row(asked)
    assert (row["status"], row["model"], row["steps"], row["last_loss"]) == ("running", None, 0, None)
