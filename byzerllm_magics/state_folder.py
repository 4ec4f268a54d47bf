"""The user's state folder: what has to outlive a kernel and belongs to no job."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """Return ``$BYZERLLM_STATE``, else ``$XDG_STATE_HOME/byzerllm``, else ``~/.local/state/byzerllm``."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = Path(os.environ.get("BYZERLLM_STATE") or Path(base) / "byzerllm").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
