"""What jobs take on the disk, and what of it can go."""

from __future__ import annotations

import shutil
from pathlib import Path

from .checkpoint import committed
from .job_folder import JobFolder


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder; what two jobs share counts for both."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def dispensable(folder: JobFolder) -> list[Path]:
    """Return what an ended job does not need: to go on, if it was stopped or has failed; as a result, if it finished.

    The result, the records and the logs are never among it, and of a job that goes on nothing is.
    """
    ending = folder.ending()
    if ending is None:
        return []
    if ending["event"] == "finished":
        found = [folder.checkpoints, folder.data]
    else:
        found = sorted(set(folder.checkpoints.iterdir()) - set(committed(folder)))
    return [path for path in found if path.exists() and size(path)]


def clean(folder: JobFolder) -> int:
    """Remove what is `dispensable` and return its bytes; the folders themselves stay."""
    freed = 0
    for path in dispensable(folder):
        freed += size(path)
        shutil.rmtree(path)
        if path in (folder.checkpoints, folder.data):
            path.mkdir()
    return freed
