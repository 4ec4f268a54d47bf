"""Who gets a run's numbers."""

from pathlib import Path

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.trackers import TRACKERS, check_tracker, tracker


def test_a_tracker_that_is_not_installed_is_an_error_that_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tracker("none")
    check_tracker("tensorboard")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ByzerError, match='report_to="wandb", and the package wandb is not installed') as caught:
        check_tracker("wandb")
    assert "pip install wandb" in caught.value.do


@pytest.mark.parametrize("name", TRACKERS)
def test_every_tracker_takes_numbers_and_closes(name: str, folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real package, where it is installed; nothing leaves the machine."""
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    made = tracker(name, folder)
    assert made is not None
    for step in (1, 2):
        made.log({"loss": 1 / step}, step)
    made.close()
    kept = {path for path in Path(folder.root).rglob("*") if path.is_file() and path.stat().st_size}
    assert len(kept - {folder.root / "job.json"}) >= 1
