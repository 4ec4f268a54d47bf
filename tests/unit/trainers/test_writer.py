"""What is written behind training: a copy of the moment, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from byzerllm_trainers.writer import BackgroundWriter, in_memory, write_file
from tests.small_disk import small_disk_at


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    with small_disk_at(tmp_path, 1) as disk:
        yield disk


def written(folder: Path, **states: Any) -> dict[str, Any]:
    """Write files, and return their index."""
    writer = BackgroundWriter(None)
    for name, state in states.items():
        writer.save(state, folder / f"{name}.pt")
    writer.start(folder / "index.json")
    writer.wait()
    index: dict[str, Any] = json.loads((folder / "index.json").read_text())
    return index


def test_files_hold_what_was_there_when_they_were_copied(tmp_path: Path) -> None:
    weights = torch.arange(10.0)
    writer = BackgroundWriter(None)
    writer.save({"weights": weights}, tmp_path / "a.pt")
    weights.zero_()  # training goes on
    writer.start(tmp_path / "index.json")
    writer.wait()
    assert torch.load(tmp_path / "a.pt")["weights"].tolist() == list(range(10))


def test_the_index_names_size_and_digest_of_every_file(tmp_path: Path) -> None:
    index = written(tmp_path, a=torch.ones(1000), b={"step": 3})
    assert set(index) == {"a.pt", "b.pt"}
    for name, entry in index.items():
        content = (tmp_path / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_tied_weights_and_views_are_copied_once_and_as_small_as_they_are() -> None:
    flat = torch.zeros(1_000_000)
    tied = torch.ones(10)
    state = OrderedDict(head=tied, embedding=tied, view=flat[:4], more=[flat[:4], (1, "two")])
    copied = in_memory(state)
    assert type(copied) is OrderedDict
    assert copied["head"] is copied["embedding"]
    assert copied["head"] is not tied
    assert copied["more"] == [copied["view"], (1, "two")]
    assert copied["view"].untyped_storage().nbytes() == 16


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        written(small_disk, small=torch.ones(10), large=torch.ones(1_000_000))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(small_disk / "large.pt"))
    assert list(small_disk.iterdir()) == []


def test_after_an_error_the_next_checkpoint_is_written(tmp_path: Path) -> None:
    writer = BackgroundWriter(None)
    writer.save(torch.ones(1), tmp_path / "missing" / "a.pt")
    writer.start(tmp_path / "index.json")
    with pytest.raises(FileNotFoundError):
        writer.wait()
    writer.save(torch.ones(1), tmp_path / "b.pt")
    writer.start(tmp_path / "index.json")
    writer.wait()
    assert list(json.loads((tmp_path / "index.json").read_text())) == ["b.pt"]


def test_what_torch_refuses_to_write_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="pickle"):
        write_file(tmp_path / "a.pt", lambda: None)
