"""How a problem in a cell is shown: what is wrong, the source line with a caret below it, what to do."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from byzerllm_adapters.errors import ByzerError

from .places import Span
from .secrets import without_secrets

SOURCE_WIDTH = 90
"""Columns of a source line that are shown; a longer one is clipped around the caret."""

SHOWN = 5
"""Problems that are shown with their places; the rest are counted."""

Problem = tuple[Span, str, str]
"""Where it is, what is wrong, what to do."""


class LanguageError(ByzerError):
    """A cell that cannot be read, or a parameter of it that cannot be used.

    One problem takes at most five lines; of several each takes three: place and advice, the source line, a caret.

    Attributes:
        problems: All of them, in the order of the text.
        text: The cell, secrets starred.
    """

    problems: tuple[Problem, ...] = ()
    text: str = ""

    def render(self) -> list[str]:
        """Return all problems, each with line, column, caret and what to do."""
        if len(self.problems) < 2:
            return super().render()
        lines = [f"{type(self).__name__}: {len(self.problems)} problems"]
        for span, what, do in self.problems[:SHOWN]:
            position, *source = _place(self.text, span).split("\n")
            advice = f" → {do.splitlines()[0]}" if do else ""
            lines += [f"{position.rstrip(':')}: {' '.join(what.split())}{advice}", *source]
        hidden = len(self.problems) - SHOWN
        return [*lines, f"… and {hidden} more"] if hidden > 0 else lines


def problem_error(text: str, problems: Sequence[Problem]) -> LanguageError:
    """Return one error for all problems of a cell.

    Args:
        text: The cell's text, that the spans point into.
        problems: At least one, in any order.

    """
    assert problems, "an error needs a problem"
    in_order = sorted(problems, key=lambda problem: problem[0].start)
    (span, what, do), *others = [(span, " ".join(what.split("\n")), do) for span, what, do in in_order]
    if others:
        what = f"{what} (+{len(others)} more: {_named(others)})"
    error = LanguageError(what, where=_place(text, span), do=do)
    error.problems, error.text = tuple(in_order), without_secrets(text)
    return error


def _named(problems: Sequence[Problem]) -> str:
    """Return those after the first, as many as `render` shows."""
    names = [f"line {span.line}: {_clipped(what, 0, 60)[0]}" for span, what, _ in problems[: SHOWN - 1]]
    hidden = len(problems) - len(names)
    return "; ".join([*names, f"… and {hidden} more"] if hidden else names)


def _place(text: str, span: Span) -> str:
    """Return the position, the source line and a caret below it (without the text: the position alone)."""
    position = f"line {span.line}, column {span.column}:"
    lines = without_secrets(text).split("\n")
    if not text or span.line > len(lines):
        return position.rstrip(":")
    source = lines[span.line - 1].rstrip("\r").replace("\t", " ")
    begin = span.column - 1
    end = span.end_column - 1 if span.end_line == span.line else len(source)
    shown, caret = _clipped(source, begin, SOURCE_WIDTH)
    marked = shown[caret : caret + max(1, end - begin)]
    carets = "^" * max(1, display_width(marked))
    return f"{position}\n    {shown}\n    {' ' * display_width(shown[:caret])}{carets}"


def _clipped(line: str, begin: int, width: int) -> tuple[str, int]:
    """Return at most `width` columns of a line that hold the character `begin`, and where that one is now."""
    first, before = begin, 0
    while first and before + _columns(line[first - 1]) <= width * 2 // 3:
        first -= 1
        before += _columns(line[first])
    head = "…" if first else ""
    last, columns = first, len(head)
    while last < len(line) and columns + _columns(line[last]) < width:
        columns += _columns(line[last])
        last += 1
    tail = "…" if last < len(line) else ""
    return head + line[first:last] + tail, begin - first + len(head)


def display_width(text: str) -> int:
    """Return a text's columns in a monospaced font: wide characters take two, combining ones none."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if character.isascii():
        return 1
    wide = unicodedata.east_asian_width(character) in "WF"
    return 1 + wide - (unicodedata.combining(character) > 0)
