"""A job with a copy at ``s3://`` goes on where nothing of it is on the disk, and ends with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster.jobs import Job
from byzerllm_trainers.checkpoint import committed
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.mirror import Mirror, fetch, mirror_of
from tests.cluster.helpers import STEPS, Observed, actor_lives, event_names, eventually, pretraining, sha256, worker_pid
from tests.cluster.test_resume import is_the_uninterrupted

PREFIX = "s3://bucket/jobs"


@pytest.fixture
def begun(
    session: Any, tiny_model: Path, corpus: Path, elsewhere: Callable[[str], None]
) -> Callable[..., tuple[Job, Mirror]]:
    """Start the job of `pretrained` with a copy, and return both when the job has two checkpoints, and stands still."""

    def start(name: str, steps: int = STEPS) -> tuple[Job, Mirror]:
        keys = pretraining(tiny_model, corpus, Path("jobs"), name=name, stage=2, steps=steps)
        job: Job = session.run(keys | {"localPathPrefix": PREFIX})
        mirror = mirror_of(job.folder)
        assert mirror is not None
        eventually((job.folder.logs / "rank-1.log").exists, 120)
        workers = [psutil.Process(worker_pid(f"W-{rank}-{name}")) for rank in range(2)]
        eventually(lambda: event_names(job).count("checkpoint") >= 2, 120)
        for worker in workers:
            worker.suspend()
        return job, mirror

    return start


def test_a_job_goes_on_elsewhere_from_the_last_whole_checkpoint_of_its_copy(
    session: Any, begun: Callable[..., tuple[Job, Mirror]], elsewhere: Callable[[str], None], pretrained: Observed
) -> None:
    first, mirror = begun("copied")
    first.stop(now=True)
    first.wait()
    eventually(lambda: not actor_lives("copied"), 60)
    newest = committed(first.folder)[-1].name
    [weights, *_] = [name for name in mirror._sizes(f"checkpoints/{newest}") if name.endswith(".pt")]
    mirror._write(weights, b"not what was written")
    elsewhere("second")
    with pytest.raises(ByzerError, match=f"a job named 'copied' exists already at {PREFIX}"):
        session.run(dict(first.folder.request()["parameters"]))
    job = session.job(f"{PREFIX}/copied")
    assert job.folder.root != first.folder.root
    job.resume()
    assert job.wait()["status"] == "finished"
    assert any(f"checkpoint {newest} is damaged" in event.get("message", "") for event in job.folder.events())
    assert is_the_uninterrupted(job, pretrained)
    eventually(lambda: not actor_lives("copied"), 60)
    elsewhere("third")
    copy = fetch(f"{PREFIX}/copied")
    assert copy.metrics() == job.folder.metrics()
    assert sha256(copy.model / "model.safetensors") == sha256(job.folder.model / "model.safetensors")


def test_a_job_that_is_resumed_elsewhere_ends_here(
    begun: Callable[..., tuple[Job, Mirror]], elsewhere: Callable[[str], None]
) -> None:
    job, mirror = begun("taken", steps=100)
    eventually(lambda: "checkpoints/step-10/manifest.json" in mirror._sizes("checkpoints"), 60)
    elsewhere("second")
    other: JobFolder = fetch(f"{PREFIX}/taken")
    other_mirror = mirror_of(other)
    assert other_mirror is not None
    other_mirror.claim(other.take_lease("there"), "there")
    eventually(lambda: not actor_lives("taken"), 60)
    assert not {"finished", "failed", "stopped"} & set(event_names(job))
    assert f"took over from attempt 1 at {PREFIX}/taken" in (job.folder.logs / "coordinator.log").read_text()
