"""What an ended job does not need: never its result, and nothing of a job that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from byzerllm_trainers.disk import clean, dispensable, size
from byzerllm_trainers.job_folder import JobFolder


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    """A job with a checkpoint, a torn one, a damaged one, token shards, and a result."""
    folder = JobFolder(tmp_path / "job")
    folder.create({})
    for name in ("step-2", "step-3", "damaged-step-1"):
        (folder.checkpoints / name).mkdir()
        (folder.checkpoints / name / "state.pt").write_bytes(bytes(1000))
    (folder.checkpoints / "step-2" / "manifest.json").write_text("{}")
    for path in (folder.shards, folder.model):
        path.mkdir(parents=True)
        (path / "content").write_bytes(bytes(100))
    return folder


def end(folder: JobFolder, how: str) -> None:
    folder.append("events.jsonl", [{"event": how, "time": 0.0, "attempt": 1}])


def names(folder: JobFolder) -> set[str]:
    return {path.name for path in dispensable(folder)}


def test_a_job_that_goes_on_needs_everything(job: JobFolder) -> None:
    end(job, "running")
    assert names(job) == set()
    assert clean(job) == 0


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_one_that_can_go_on_needs_its_checkpoints_and_data(job: JobFolder, how: str) -> None:
    end(job, how)
    assert names(job) == {"step-3", "damaged-step-1"}
    assert clean(job) == 2000
    assert [path.name for path in job.checkpoints.iterdir()] == ["step-2"]
    assert (job.shards / "content").exists()


def test_one_that_has_finished_needs_its_result(job: JobFolder) -> None:
    end(job, "finished")
    before = size(job.root)
    (job.data / "rows.parquet").write_bytes(bytes(50))
    assert clean(job) == 3102
    assert size(job.root) == before - 3102 + 50
    assert (job.model / "content").exists()
    assert names(job) == set()
