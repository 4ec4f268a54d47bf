"""Who is told that a job has ended, and with what."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from byzerllm_adapters.parameters import ParameterError, read
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest
from byzerllm_trainers.on_finish import announce
from byzerllm_trainers.train_parameters import TrainParameters


@pytest.fixture
def ended(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "ended")
    request = JobRequest(
        {"pretrainedModelType": "sft/llama", "localModelDir": "m"},
        "me",
        1,
        gpu=False,
        cpus_per_worker=1,
        threads_per_worker=1,
    )
    folder.create(request.as_record())
    folder.append("metrics.jsonl", [{"attempt": 1, "step": 1, "loss": 2.5, "tokens": 7}])
    folder.append("events.jsonl", [{"event": "finished", "time": 1.0, "attempt": 1, "steps": 1}])
    return folder


def test_a_command_gets_the_row_and_the_jobs_name_status_and_folder(ended: JobFolder, tmp_path: Path) -> None:
    announce(f'shell:cat > "{tmp_path}/row.json"; echo "$JOB_NAME $JOB_STATUS $JOB_FOLDER" > "{tmp_path}/job"', ended)
    row = json.loads((tmp_path / "row.json").read_text())
    assert (row["name"], row["status"], row["last_loss"]) == ("ended", "finished", 2.5)
    assert (tmp_path / "job").read_text() == f"ended finished {ended.root}\n"


def test_a_command_that_fails_is_an_error(ended: JobFolder) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        announce("shell:exit 3", ended)


class Hook(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    posted: list[tuple[str, dict[str, object]]]
    status = 204

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.posted.append((self.path, json.loads(self.rfile.read(length))))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Hook, "posted", [], raising=False)
    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_gets_the_row(ended: JobFolder, hook: str) -> None:
    announce(f"{hook}/jobs?x=1", ended)
    [(path, row)] = Hook.posted
    assert path == "/jobs?x=1"
    assert (row["name"], row["status"], row["folder"]) == ("ended", "finished", str(ended.root))


def test_a_server_that_refuses_is_an_error(ended: JobFolder, hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hook, "status", 500)
    with pytest.raises(OSError, match="500"):
        announce(hook, ended)


@pytest.mark.parametrize("value", ["notify-send done", "shell:", "ftp://x/y", "http://"])
def test_what_does_not_say_whom_to_tell_is_refused(value: str) -> None:
    with pytest.raises(ParameterError, match="does not say whom to tell"):
        read(TrainParameters, {"pretrainedModelType": "sft/llama", "localModelDir": "m", "on_finish": value})
