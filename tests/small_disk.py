"""A file system so small that it can be filled."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk_at(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Mount one on a folder; a test that may not is skipped."""
    options = ["-t", "tmpfs", "-o", f"size={mebibytes}m"]
    if subprocess.run(["mount", *options, "none", folder], check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
