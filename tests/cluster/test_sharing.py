"""Jobs and models that need the same share it: whoever waits says for whom, and a model lends its place to a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster.jobs import Job
from byzerllm_magics.cluster.pausing import paused
from byzerllm_magics.session import Session
from tests.cluster.helpers import event_names, eventually, pretraining
from tests.cluster.nodes import nodes

pytestmark = pytest.mark.cluster


def waits_for(job: Job) -> str:
    """What a job says that it waits for."""
    waiting = eventually(lambda: [event for event in job.folder.events() if event.get("waiting")], 60)
    return str(waiting[-1]["message"])


def test_two_jobs_and_a_model_on_two_cores_take_turns(
    session: Session, reciter: str, tiny_model: Path, corpus: Path, prefix: Path
) -> None:
    first = session.run(pretraining(tiny_model, corpus, prefix, name="first", stage=2, steps=1500))
    eventually(lambda: "running" in event_names(first), 60)
    second = session.run(pretraining(tiny_model, corpus, prefix, name="second", stage=2))
    message = waits_for(second)
    assert "held by job first and model" in message
    assert reciter in message
    assert "".join(session.chat("Say it", model=reciter, temperature=0.0, max_tokens=5)), "it answers meanwhile"
    third = session.run(pretraining(tiny_model, corpus, prefix, name="third", stage=2))
    assert "held by job first and model" in waits_for(third), "the second only waits itself"
    third.stop()
    assert third.wait()["status"] == "stopped", "it need not have begun"
    first.stop()
    assert first.wait()["status"] == "stopped"
    assert second.wait()["status"] == "finished"


def test_a_model_lends_its_gpu_to_a_job_and_comes_back_when_that_has_ended(
    session: Session, tiny_model: Path, corpus: Path, prefix: Path
) -> None:
    """The GPU is Ray's belief alone: model and job compute on the CPU."""
    mine = Session()
    mine.setup("sfft", num_gpus=1, owner="tester")
    with nodes({"CPU": 1, "GPU": 1}):
        mine.run(action="infer", localModelDir=str(tiny_model), udfName="lender")
        job = mine.run(pretraining(tiny_model, corpus, prefix, name="borrower", stage=0))
        message = waits_for(job)
        assert "waiting for 1 GPU (0 free)" in message
        assert '"%byzerllm pause lender --for borrower" lends its place' in message
        mine.pause("lender", "borrower")
        assert paused([job]) == [("lender", "borrower")]
        assert job.wait()["status"] == "finished"
        eventually(lambda: [model.status for model in mine.models() if model.name == "lender"] == ["RUNNING"], 120)
        assert paused([job]) == []
        with pytest.raises(ByzerError, match="job borrower is finished: model 'lender' stays"):
            mine.pause("lender", "borrower")
        assert "".join(mine.chat("Hello", model="lender", max_tokens=2)) is not None
        mine.undeploy("lender")
