"""A job that was stopped, lost its coordinator or its lease goes on from the cell, and ends with the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster.jobs import Job
from tests.cluster.helpers import STEPS, Observed, actor_lives, event_names, eventually, pretraining, sha256, worker_pid


@pytest.fixture
def begun(session: Any, tiny_model: Path, corpus: Path, prefix: Path) -> Callable[[str], Job]:
    """Start the job of `pretrained` again under another name, and return it when it has a checkpoint."""

    def start(name: str) -> Job:
        job: Job = session.run(pretraining(tiny_model, corpus, prefix, name=name, stage=2))
        eventually(lambda: "checkpoint" in event_names(job), 120)
        return job

    return start


def is_the_uninterrupted(job: Job, pretrained: Observed) -> bool:
    """Whether a job has each step once, with the same loss, and the same weights bit for bit."""
    ours, theirs = (each.metrics()[["step", "loss", "grad_norm"]] for each in (job, pretrained.job))
    assert list(ours.step) == list(range(1, STEPS + 1))
    weights = [sha256(Path(each.model) / "model.safetensors") for each in (job, pretrained.job)]
    return bool(ours.equals(theirs)) and weights[0] == weights[1]


def test_a_stopped_job_goes_on_and_ends_with_the_same_weights(
    begun: Callable[[str], Job], pretrained: Observed
) -> None:
    job = begun("stopped")
    with pytest.raises(ByzerError, match="job stopped is running on this cluster"):
        job.resume()
    job.stop()
    assert job.wait()["status"] == "stopped"
    job.resume()
    assert job.state not in ("stopped", "failed")
    assert job.wait()["status"] == "finished"
    assert is_the_uninterrupted(job, pretrained)
    with pytest.raises(ByzerError, match=f"job stopped has finished: {STEPS} steps"):
        job.resume()
    with pytest.raises(ByzerError, match=f"job stopped has done {STEPS} steps, and its end is at {STEPS}"):
        job.resume(max_steps=STEPS)


def test_a_finished_job_trains_on_to_a_later_end(session: Any, tiny_model: Path, corpus: Path, prefix: Path) -> None:
    job = session.run(pretraining(tiny_model, corpus, prefix, name="longer", stage=2, steps=6))
    first = job.wait()
    before = job.metrics()
    job.resume(max_steps=9)
    last = job.wait()
    assert (first["steps"], last["steps"], last["status"]) == (6, 9, "finished")
    assert job.metrics().iloc[:6].equals(before)
    assert list(job.metrics().step) == list(range(1, 10))


@pytest.mark.parametrize("stage", [2, 3])
def test_a_job_goes_on_with_another_number_of_workers(
    session: Any, tiny_model: Path, corpus: Path, prefix: Path, stage: int
) -> None:
    """Each step has the same rows as before, so that losses differ in rounding alone."""
    import numpy as np

    keys = pretraining(tiny_model, corpus, prefix, name=f"two-{stage}", stage=stage, steps=60)
    two = session.run(keys)
    two.wait()
    job = session.run(keys | {"name": f"one-{stage}"})
    eventually(lambda: "checkpoint" in event_names(job), 120)
    job.stop()
    done = int(job.wait()["steps"])
    assert done < 60
    with pytest.raises(ByzerError, match="8 rows a step cannot be dealt to 3 workers"):
        job.resume(workers=3)
    job.resume(workers=1)
    assert job.wait()["status"] == "finished"
    assert job.folder.request()["workers"] == 1
    ours, theirs = (each.metrics() for each in (job, two))
    assert list(ours.tokens) == list(theirs.tokens)
    assert np.allclose(ours.loss, theirs.loss, rtol=1e-4)
    assert np.allclose(ours.grad_norm, theirs.grad_norm, rtol=1e-3)
    assert not list(job.folder.checkpoints.glob(".universal*"))


def test_a_killed_coordinator_comes_back_by_itself_and_takes_a_new_lease(
    begun: Callable[[str], Job], pretrained: Observed
) -> None:
    job = begun("beheaded")
    workers = [psutil.Process(worker_pid(f"W-{rank}-beheaded")) for rank in range(2)]
    psutil.Process(worker_pid("beheaded")).kill()
    assert job.wait()["status"] == "finished"
    assert not any(worker.is_running() for worker in workers)
    assert is_the_uninterrupted(job, pretrained)
    assert "restarting" in event_names(job)
    assert json.loads((job.folder.root / "lease.json").read_text())["attempt"] == 2


def test_a_coordinator_whose_lease_was_taken_ends_without_a_word_in_the_folder(
    begun: Callable[[str], Job], pretrained: Observed
) -> None:
    job = begun("fenced")
    taken = job.folder.take_lease("another cluster")
    written = len(event_names(job))
    eventually(lambda: not actor_lives("fenced"), 60)
    assert len(event_names(job)) == written
    assert "attempt 2 took over from attempt 1" in (job.folder.logs / "coordinator.log").read_text()
    job.resume()
    assert job.folder.attempt() == taken + 1
    assert job.wait()["status"] == "finished"
    assert is_the_uninterrupted(job, pretrained)
