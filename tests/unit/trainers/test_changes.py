"""A job that goes on with other workers: each step keeps its rows, whatever deepspeedConfig said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import resume
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest, read_request
from byzerllm_trainers.resume import Changes

STOPPED = {"event": "stopped", "steps": 3}
OF_A_STEP = {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2, "train_batch_size": 16}


@pytest.fixture(autouse=True)
def _roomy_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def placed(workers: int, _cpus: object, resources: object, *, one_node: bool) -> dict[str, Any]:
        return {"workers": workers, "gpu": False, "cpus_per_worker": 1, "threads_per_worker": 1, "resources": resources}

    monkeypatch.setattr(resume, "placement", placed)


@pytest.fixture
def of_two(tmp_path: Path) -> JobFolder:
    """A job of two workers whose deepspeedConfig says how many rows a step has: 16."""
    config = {**OF_A_STEP, "zero_optimization": {"stage": 2}}
    keys = {"pretrainedModelType": "sfft/llama", "localModelDir": "m", "deepspeedConfig": config}
    folder = JobFolder(tmp_path / "job")
    folder.create(JobRequest(keys, "me", 2, False, 1, 1).as_record())
    return folder


@pytest.mark.parametrize("workers", [1, 2, 4, 16])
def test_a_step_keeps_the_rows_that_its_deepspeed_config_gave_it(of_two: JobFolder, workers: int) -> None:
    resume._change(of_two, Changes(workers=workers), STOPPED)
    request = read_request(of_two)
    assert request.workers == workers
    assert request.loop.rows * request.loop.accumulation * workers == 16
    assert request.train.deepspeed_config == {"zero_optimization": {"stage": 2}}, "no number is said twice"


def test_rows_that_cannot_be_dealt_are_refused_and_the_request_stays(of_two: JobFolder) -> None:
    before = of_two.request()
    with pytest.raises(ByzerError, match="16 rows a step cannot be dealt to 3 workers"):
        resume._change(of_two, Changes(workers=3), STOPPED)
    assert of_two.request() == before
