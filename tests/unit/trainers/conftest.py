import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_trainers.corpus import keep_rows
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest, read_request
from byzerllm_trainers.recipe import Job
from tests.unit.trainers.arguments.bench import Bench
from tests.unit.trainers.submitting import Cluster


@pytest.fixture(scope="session")
def group() -> Iterator[None]:
    """This process as a gang of one."""
    from torch import distributed

    from byzerllm_trainers.engine import Rank, join_group
    from byzerllm_trainers.processes import Place

    before = dict(os.environ)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    join_group(Rank(0, 1), [Place("127.0.0.1", port)], gpu=False)
    yield
    distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """A new job's folder; its request is not a real one."""
    folder = JobFolder(tmp_path / "job")
    folder.create({"parameters": {"pretrainedModelType": "sft/llama"}, "workers": 1})
    return folder


@pytest.fixture
def make_job(tmp_path: Path, tiny_model: Path) -> Any:
    """Makes a job's folder and request from rows (a table, or a folder of files) and the keys of its method."""

    def make(method: str, rows: pa.Table | Path, workers: int = 1, model_dir: Path = tiny_model, **keys: object) -> Job:
        parameters = {"pretrainedModelType": f"{method}/llama", "localModelDir": str(model_dir)}
        if isinstance(rows, Path):
            parameters["localDataDir"] = str(rows)
        parameters |= {f"{method}.{key}": value for key, value in keys.items()}
        request = JobRequest(parameters, "me", workers, gpu=False, cpus_per_worker=1, threads_per_worker=1)
        folder = JobFolder(tmp_path / f"job-{len(list(tmp_path.iterdir()))}")
        folder.create(request.as_record())
        if not isinstance(rows, Path):
            keep_rows(folder, rows)
        return Job(folder, read_request(folder))

    return make


@pytest.fixture
def bench(
    tiny_model: Path,
    tmp_path: Path,
    make_job: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Bench:
    return Bench(tiny_model, tmp_path, make_job, monkeypatch, capsys)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


@pytest.fixture
def keys(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "pretrainedModelType": "sft/llama",
        "localModelDir": str(tiny_model),
        "localPathPrefix": str(tmp_path / "jobs"),
        "name": "job",
    }
