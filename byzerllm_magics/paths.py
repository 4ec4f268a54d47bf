"""Paths as people read them."""

from __future__ import annotations

from pathlib import Path


def shown(path: str | Path) -> str:
    """Return a path relative to the working folder if it lies below, else from the home folder (``~``), else whole.

    A notebook that is shared then says where things lie beside it, not how its author's disk is laid out.
    """
    path = Path(path)
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    if path.is_relative_to(Path.home()):
        return str("~" / path.relative_to(Path.home()))
    return str(path)
