"""What a cell says: one frozen dataclass a statement, each with the place it was written at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
        return cls(*_line_and_column(text, start), *_line_and_column(text, end), start, end)


@dataclass(frozen=True)
class Assignment:
    """One `key="value"`: the value without its quotes, its span with them."""

    key: str
    value: str
    key_span: Span
    value_span: Span


@dataclass(frozen=True)
class Setup:
    """`!byzerllm setup`: a mode (it resets every setting, so it comes first), then settings in order."""

    mode: str | None
    mode_span: Span | None
    settings: tuple[Assignment, ...]
    span: Span


@dataclass(frozen=True)
class SetVariable:
    """`set name = '''text'''`: what `${name}` stands for in later statements."""

    name: str
    value: str
    value_span: Span
    span: Span


@dataclass(frozen=True)
class RunLLM:
    """`` run command as LLM.`` where … ``: deploy or train, as its parameters say."""

    parameters: tuple[Assignment, ...]
    span: Span


@dataclass(frozen=True)
class ModelCommand:
    """`!byzerllm model remove NAME` and `model exists NAME`."""

    verb: Literal["remove", "exists"]
    name: str
    span: Span


Statement = Setup | SetVariable | RunLLM | ModelCommand


def _line_and_column(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
