"""What cells have in common: ``${name}`` in their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ..language import RunLLM, Setup
    from .dispatch import Context

S = TypeVar("S", "RunLLM", "Setup")


def substituted(context: Context, statement: S, text: str) -> S:
    """Replace ``${name}`` inside values: by ``set`` first, then by a text or number variable of that name.

    Raises:
        LanguageError: an undefined name.
    """
    from ..language import substitute

    names = visible(context.session.variables, context.shell.user_ns)
    replaced = substitute(statement, names.get, names=names, text=text)
    assert isinstance(replaced, type(statement))
    return replaced


def visible(variables: Mapping[str, str], namespace: Mapping[str, Any]) -> dict[str, str]:
    """Names that a cell may use, and their text."""
    simple = {
        name: str(value)
        for name, value in namespace.items()
        if isinstance(value, str | int | float) and not name.startswith("_")
    }
    return simple | dict(variables)
