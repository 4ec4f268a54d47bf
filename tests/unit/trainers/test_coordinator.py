"""When a job goes on after a loss, and when it does not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.coordinator import MAX_LOSSES, Coordinator
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest


class Losing(Coordinator):
    """A coordinator that runs nothing: it is only told of losses."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder, self._attempt = folder, folder.take_lease("test")
        self._telling, self._gang = threading.RLock(), None
        self._stop, self._end_now, self._begun = threading.Event(), threading.Event(), threading.Event()
        self._begun.set()

    def lose(self, *, driven: bool = False) -> None:
        keys: dict[str, Any] = {"pretrainedModelType": "sft/llama", "localModelDir": "m"}
        request = JobRequest(keys, "me", 1, gpu=False, cpus_per_worker=1, threads_per_worker=1, driven=driven)
        self._go_on(request, "worker 0 died")

    def tell(self, name: str, **details: Any) -> None:
        self._event(name, **details)


@pytest.fixture
def coordinator(tmp_path: Path) -> Losing:
    folder = JobFolder(tmp_path / "job")
    folder.create({})
    return Losing(folder)


def test_losses_that_repeat_themselves_end_the_job(coordinator: Losing) -> None:
    for _ in range(MAX_LOSSES):
        coordinator.lose()
    with pytest.raises(ByzerError, match=r"worker 0 died \(4 losses without a new checkpoint\)"):
        coordinator.lose()


@pytest.mark.parametrize(
    ("name", "details"), [("checkpoint", {"step": 5}), ("restarting", {"message": "resumed by the user"})]
)
def test_a_checkpoint_or_a_resume_between_losses_lets_it_go_on(
    coordinator: Losing, name: str, details: dict[str, Any]
) -> None:
    for _ in range(3):
        for _ in range(MAX_LOSSES):
            coordinator.lose()
        coordinator.tell(name, **details)


def test_each_loss_is_told_with_what_is_done_about_it(coordinator: Losing) -> None:
    coordinator.lose()
    [event] = coordinator._folder.events()
    assert event["message"] == "worker 0 died; beginning again: there is no checkpoint yet"
    (coordinator._folder.checkpoints / "step-5").mkdir()
    (coordinator._folder.checkpoints / "step-5" / "manifest.json").write_text("{}")
    coordinator.lose()
    assert coordinator._folder.events()[-1]["message"] == "worker 0 died; going on from the last checkpoint"


def test_a_job_that_python_code_drives_is_not_started_again(coordinator: Losing) -> None:
    with pytest.raises(ByzerError, match="worker 0 died, and Python code drives the workers"):
        coordinator.lose(driven=True)


@pytest.mark.parametrize("now", [False, True])
def test_a_stop_that_was_asked_for_holds_when_the_coordinator_is_restarted(coordinator: Losing, now: bool) -> None:
    coordinator.stop(now)
    restarted = Losing(coordinator._folder)
    restarted._heed_earlier_stop()
    assert (restarted._stop.is_set(), restarted._end_now.is_set()) == (True, now)


def test_a_job_that_was_resumed_after_a_stop_does_not_heed_it(coordinator: Losing) -> None:
    coordinator.stop()
    coordinator.tell("restarting", message="resumed by the user")
    restarted = Losing(coordinator._folder)
    restarted._heed_earlier_stop()
    assert not restarted._stop.is_set()


def test_a_stop_that_comes_after_the_end_does_not_take_it_back(coordinator: Losing) -> None:
    coordinator.tell("finished", steps=3)
    coordinator.stop()
    ending = coordinator._folder.ending()
    assert ending is not None
    assert ending["event"] == "finished"
