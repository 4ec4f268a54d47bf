"""What cells have in common: ``${name}`` in their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

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

    names = context.session.texts()
    replaced = substitute(statement, names.get, names=names, variable=context.session.variable, text=text)
    assert isinstance(replaced, type(statement))
    return replaced
