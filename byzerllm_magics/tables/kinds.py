"""What kinds of values nested rows hold, by path: a column has one kind at each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def kinds(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of each value inside and what it is; nothing for null, which goes with anything."""
    if value is None:
        return
    if path:
        yield path, kind_of(value)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from kinds(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from kinds(inner, f"{path}[]")


def kind_of(value: Any) -> str:
    """Return what a value is, as a person says it."""
    named = {bool: "a truth value", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return named.get(type(value), f"a {type(value).__name__}")
