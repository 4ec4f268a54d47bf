"""When a job goes on after a loss, and when it does not."""

from __future__ import annotations

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
    assert event["message"] == "worker 0 died; going on from the last checkpoint"


def test_a_job_that_python_code_drives_is_not_started_again(coordinator: Losing) -> None:
    with pytest.raises(ByzerError, match="worker 0 died, and Python code drives the workers"):
        coordinator.lose(driven=True)
