"""The keys of a cell, checked and explained. pydantic is imported when a name below is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cell import ACTIONS, at_its_key, at_the_caret, route
    from .help import GROUPS, help_text, keys_of, search_text
    from .setup import MODES, SetupSettings, configure

__all__ = [
    "ACTIONS",
    "GROUPS",
    "MODES",
    "SetupSettings",
    "at_its_key",
    "at_the_caret",
    "configure",
    "help_text",
    "keys_of",
    "route",
    "search_text",
]

_HOMES = {
    "ACTIONS": "cell",
    "GROUPS": "help",
    "MODES": "setup",
    "SetupSettings": "setup",
    "at_its_key": "cell",
    "at_the_caret": "cell",
    "configure": "setup",
    "help_text": "help",
    "keys_of": "help",
    "route": "cell",
    "search_text": "help",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
