"""What jobs take on the disk, and what of it can go."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from .checkpoint import committed
from .job_folder import UNPUBLISHED, JobFolder
from .mirror import mirror_of
from .object_store import unreachable


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder; what two jobs share counts for both."""
    total = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # a running job removes what it does not need
                total += os.lstat(Path(parent, file)).st_size
    return total


def dispensable(folder: JobFolder) -> list[Path]:
    """Return what an ended job does not need: to go on, if it was stopped or has failed; as a result, if it finished.

    The result, the records and the logs are never among it, and of a job that goes on nothing is.
    """
    ending = folder.ending()
    if ending is None:
        return []
    if ending["event"] == "finished":
        found = [folder.checkpoints, folder.shards, folder.held_out]
    else:
        found = sorted(set(folder.checkpoints.iterdir()) - set(committed(folder)))
    found += sorted(folder.data.glob(f"{UNPUBLISHED}*"))
    return [path for path in found if path.exists() and size(path)]


def clean(folder: JobFolder) -> int:
    """Remove what is `dispensable`, in the job's copy too, and return its bytes; rows that came with the job stay.

    Raises:
        ByzerError: the copy cannot be reached: it still has what was removed here.
    """
    freed = 0
    for path in dispensable(folder):
        freed += size(path)
        shutil.rmtree(path)
        if path == folder.checkpoints:
            path.mkdir()
    if freed and (mirror := mirror_of(folder)):
        try:
            mirror.push(folder.attempt())
        except OSError as error:
            raise unreachable(mirror.address, error) from error
    return freed
