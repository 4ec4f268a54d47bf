"""What is killed comes back by itself, and the job ends with the undisturbed run's weights, bit for bit.

`benchmarks/kills.py` does this twenty times, with every part of a job and all ways to train.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from byzerllm_magics.cluster.jobs import Job
from byzerllm_trainers.job_folder import Record
from tests.cluster.helpers import STEPS, Observed, event_names, eventually, pretraining, worker_pid
from tests.cluster.test_resume import is_the_uninterrupted

Begun = tuple[Job, list[psutil.Process]]


@pytest.fixture
def begun(session: Any, tiny_model: Path, corpus: Path, prefix: Path) -> Callable[..., Begun]:
    """Start the job of `pretrained` again under another name; return it, and its workers, when it has a checkpoint.

    It has some two seconds to go then: who its workers are, which Ray takes time to say, is asked before.
    """

    def start(name: str, **more: str) -> Begun:
        parameters = pretraining(tiny_model, corpus, prefix, name=name, stage=2)
        job: Job = session.run(parameters | {f"sfft.int.{key}": value for key, value in more.items()})
        eventually((job.folder.logs / "rank-1.log").exists, 120)
        workers = [psutil.Process(worker_pid(f"W-{rank}-{name}")) for rank in range(2)]
        eventually(lambda: "checkpoint" in event_names(job), 120)
        return job, workers

    return start


def restarted(job: Job) -> Record | None:
    """The event that says that something was lost."""
    return next((event for event in job.folder.events() if event["event"] == "restarting"), None)


@pytest.mark.parametrize("seed", [1])
def test_a_worker_killed_at_a_random_moment(begun: Callable[..., Begun], pretrained: Observed, seed: int) -> None:
    chance = random.Random(seed)
    victim, step = chance.randrange(2), chance.randrange(11, STEPS - 15)
    job, workers = begun(f"killed-{seed}")
    eventually(lambda: len(job.folder.metrics()) >= step, 120)
    time.sleep(chance.uniform(0.0, 0.1))
    workers[victim].kill()
    lost = eventually(lambda: restarted(job))
    assert "died; going on from the last checkpoint" in lost["message"]
    assert job.wait()["status"] == "finished"
    assert not any(worker.is_running() for worker in workers)
    assert is_the_uninterrupted(job, pretrained)


def test_a_worker_killed_while_a_checkpoint_is_written(begun: Callable[..., Begun], pretrained: Observed) -> None:
    job, workers = begun("killed-saving")

    def is_saving() -> bool:
        folders = job.folder.checkpoints.glob("step-*")
        return any(not (path / "manifest.json").exists() for path in folders)

    eventually(is_saving, 120)
    workers[1].kill()
    eventually(lambda: restarted(job))
    assert job.wait()["status"] == "finished"
    assert is_the_uninterrupted(job, pretrained)


def test_a_worker_that_stands_still_is_noticed_and_its_stack_is_in_its_log(
    begun: Callable[..., Begun], pretrained: Observed
) -> None:
    job, workers = begun("stopped-worker", ddp_timeout="3")
    workers[1].send_signal(signal.SIGSTOP)
    lost = eventually(lambda: restarted(job))
    assert lost["lost"] == "worker 1 made no progress for 3 s; its stack is in its log"
    assert job.wait()["status"] == "finished"
    assert not any(worker.is_running() for worker in workers)
    assert is_the_uninterrupted(job, pretrained)
    log = (job.folder.logs / "rank-1.log").read_text()
    assert "most recent call first" in log
    assert "loop.py" in log


def test_a_job_that_is_stopped_now_ends_with_its_last_checkpoint(
    begun: Callable[..., Begun], pretrained: Observed
) -> None:
    job, workers = begun("stopped-now")
    job.stop(now=True)
    row = job.wait()
    ending = job.folder.ending()
    assert ending is not None
    assert (row["status"], ending["steps"] % 10) == ("stopped", 0)
    eventually(lambda: not any(worker.is_running() for worker in workers), 10)
    job.resume()
    assert job.wait()["status"] == "finished"
    assert is_the_uninterrupted(job, pretrained)


def test_a_stop_holds_although_the_coordinator_dies_before_it_acts(
    begun: Callable[..., Begun], pretrained: Observed
) -> None:
    job, workers = begun("stopped-and-killed")
    coordinator = psutil.Process(worker_pid(job.name))
    for worker in workers:  # no step ends, so that the stop is only known to the coordinator
        worker.send_signal(signal.SIGSTOP)
    job.stop()
    coordinator.kill()
    assert job.wait()["status"] == "stopped"
    assert "stopping" in event_names(job)
    assert not any(worker.is_running() for worker in workers)
    job.resume()
    assert job.wait()["status"] == "finished"
    assert is_the_uninterrupted(job, pretrained)
