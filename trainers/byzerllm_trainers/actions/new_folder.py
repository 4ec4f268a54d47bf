"""A folder that is there whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from byzerllm_adapters.errors import ByzerError


def check_free(target: Path) -> None:
    """Refuse a place where something is already.

    Raises:
        ByzerError: there is.
    """
    if target.exists():
        raise ByzerError(f"{target} is there already", where="in savePath", do="remove it, or choose another savePath")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a hidden folder to write to; it becomes ``target`` at the end, and goes away if anything is raised.

    Raises:
        ByzerError: something is at ``target`` already.
    """
    check_free(target)
    staging = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)  # what a killed process left
    staging.mkdir(parents=True)
    try:
        yield staging
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
