"""A disk that is full, and one that has changed what was written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.checkpoint import committed, is_whole
from tests.cluster.helpers import Observed, event_names, eventually, pretraining
from tests.cluster.test_resume import is_the_uninterrupted
from tests.small_disk import small_disk_at


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    with small_disk_at(tmp_path, 16) as disk:
        yield disk


def fill(disk: Path) -> None:
    """Take all the room that a disk has left."""
    with (disk / "others").open("wb", buffering=0) as others, suppress(OSError):
        while others.write(bytes(4096)):
            continue


def test_a_full_disk_stops_the_job_with_the_last_checkpoint_whole_and_it_goes_on_when_there_is_room(
    session: Any, tiny_model: Path, corpus: Path, small_disk: Path, pretrained: Observed
) -> None:
    job = session.run(pretraining(tiny_model, corpus, small_disk, name="full", stage=2))
    eventually(lambda: "checkpoint" in event_names(job), 120)
    fill(small_disk)
    with pytest.raises(ByzerError, match="the disk is full") as caught:
        job.wait()
    assert "%byzerllm resume full" in caught.value.do
    assert all(is_whole(path) for path in committed(job.folder))
    assert committed(job.folder)
    (small_disk / "others").unlink()
    job.resume()
    assert job.wait()["status"] == "finished"
    assert is_the_uninterrupted(job, pretrained)


def test_a_checkpoint_that_has_changed_is_told_and_the_one_before_is_used(
    session: Any, tiny_model: Path, corpus: Path, prefix: Path, pretrained: Observed
) -> None:
    job = session.run(pretraining(tiny_model, corpus, prefix, name="tampered", stage=2))
    eventually(lambda: event_names(job).count("checkpoint") == 2, 120)
    job.stop()
    job.wait()
    newest = committed(job.folder)[-1]
    weights = newest / "state" / "mp_rank_00_model_states.pt"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    job.resume()
    assert job.wait()["status"] == "finished"
    (note,) = [event["message"] for event in job.folder.events() if event["event"] == "note"]
    assert note.startswith(f"checkpoint {newest.name} is damaged and not used, state/mp_rank_00_model_states.pt")
    assert is_the_uninterrupted(job, pretrained)
