"""The embedded cluster ends when it has been idle for its time, and not while a job runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from byzerllm_magics.cluster import embedded
from byzerllm_magics.cluster.jobs import Job
from byzerllm_trainers.job_folder import JobFolder
from tests.cluster.helpers import eventually, pretraining, python

pytestmark = pytest.mark.cluster

KERNEL = """
from byzerllm_magics.session import Session
session = Session()
session.setup("sfft", num_gpus=1, owner="tester")
session.run({parameters!r})
"""


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder, and so a cluster, of the test's own."""
    monkeypatch.setenv("BYZERLLM_STATE", str(tmp_path))
    yield tmp_path
    if cluster := embedded.find():
        embedded.stop(cluster)


def test_it_ends_idle_but_not_while_a_job_runs_that_nobody_watches(
    own_state: Path, tiny_model: Path, corpus: Path
) -> None:
    parameters = pretraining(tiny_model, corpus, own_state, name="alone", stage=0, steps=200)
    idle = {"BYZERLLM_IDLE_HOURS": str(3 / 3600)}
    started = python(KERNEL.format(parameters=parameters), os.environ | idle)
    assert started.returncode == 0, started.stderr
    cluster = embedded.find()
    assert cluster is not None
    job = Job(JobFolder(own_state / "alone"))
    assert job.wait()["status"] == "finished", "it took longer than the cluster may be idle"
    eventually(lambda: not cluster.is_running(), 30)
    eventually(lambda: not Path(cluster.folder).exists(), 30)
    assert embedded.find() is None
