"""What was asked for at a job's end is done once, and a failure of it is told."""

from functools import partial
from pathlib import Path

from byzerllm_trainers import afterwards
from byzerllm_trainers.job_folder import JobFolder


def mark(path: Path) -> None:
    path.write_text(path.read_text() + "x" if path.exists() else "x")


def fail() -> None:
    raise OSError("no cluster")


def test_each_is_called_once_and_what_failed_is_returned(folder: JobFolder, tmp_path: Path) -> None:
    assert afterwards.call_all(folder) == []
    afterwards.add(folder, "first", partial(mark, tmp_path / "first"))
    afterwards.add(folder, "second", fail)
    afterwards.add(folder, "third", partial(mark, tmp_path / "third"))
    afterwards.remove(folder, "third")
    assert (folder.afterwards / "first").stat().st_mode & 0o777 == 0o600, "it may hold a model's keys"
    assert afterwards.call_all(folder) == ["second failed: no cluster"]
    assert afterwards.call_all(folder) == []
    assert (tmp_path / "first").read_text() == "x"
    assert not (tmp_path / "third").exists()
