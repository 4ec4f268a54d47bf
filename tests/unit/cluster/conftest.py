from collections.abc import Callable
from pathlib import Path

import pytest

from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest

MakeFolder = Callable[..., JobFolder]


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder for each test."""
    folder = tmp_path / "state"
    monkeypatch.setenv("BYZERLLM_STATE", str(folder))
    return folder


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """A function that makes the folder of a job that nobody runs."""

    def make(name: str = "job", where: str = "jobs") -> JobFolder:
        parameters = {"pretrainedModelType": "sft/llama", "localModelDir": "/models/tiny"}
        request = JobRequest(parameters, "me", 2, gpu=False, cpus_per_worker=1, threads_per_worker=1)
        folder = JobFolder(tmp_path / where / name)
        folder.create(request.as_record())
        return folder

    return make
