"""Jupyter magics for language models: ``%load_ext byzerllm_magics``.

Loading registers ``%byzerllm``, ``%%byzerllm``, ``%llm_chat`` and ``%%llm_chat`` and imports nothing heavy; Ray, torch
and the rest come with the first cell that needs them. `Session` does the same without IPython.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .session import Session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__version__ = "0.1.0"
__all__ = ["Session", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics (IPython calls this for ``%load_ext``)."""
    from .magics.registration import register

    register(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magics (IPython calls this for ``%unload_ext``); clusters, models and jobs go on."""
    from .magics.registration import unregister

    unregister(shell)
