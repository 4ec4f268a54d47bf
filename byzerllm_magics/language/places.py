"""Places in a cell's text: offsets, and the lines and columns that people count in."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A stretch of a cell's text: lines and columns count from 1, `end_column` and `end` are exclusive.

    `start` and `end` are offsets into the text, so that `text[start:end]` is what was written.
    """

    line: int
    column: int
    end_line: int
    end_column: int
    start: int
    end: int

    @classmethod
    def of(cls, text: str, start: int, end: int) -> Span:
        """Return the span of `text[start:end]`."""
        return Lines(text).span(start, end)


class Lines:
    """Where a text's lines begin: found once, because a cell has many spans."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._begins = [0]
        while following := text.find("\n", self._begins[-1]) + 1:
            self._begins.append(following)

    def span(self, start: int, end: int) -> Span:
        """Return the span of `text[start:end]`."""
        return Span(*self._place(start), *self._place(end), start, end)

    def _place(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._begins, offset)
        return line, offset - self._begins[line - 1] + 1
