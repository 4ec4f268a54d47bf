"""What a cell says: one frozen dataclass a statement, each with the place it was written at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .places import Span


@dataclass(frozen=True)
class Note:
    """A slip of the pen that was read as what it must mean, and where it stands."""

    span: Span
    text: str


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
class Load:
    """`` load text.`file:///dir/*` where wholetext="true" as t ``: files become a table.

    The format is any word, and the path whatever stands between the backquotes (`path_span` is without them).
    """

    format: str
    path: str
    options: tuple[Assignment, ...]
    table: str
    format_span: Span
    path_span: Span
    table_span: Span
    span: Span
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Select:
    """`select … as t`, `with … select … as t`: SQL whose result becomes a table.

    `sql` is the query without its last `as NAME`. It is as long as `text[sql_span.start:sql_span.end]`, character for
    character, so that a place in it is a place in the cell: comments stay, and what was repaired (see `notes`) keeps
    its width. Without an `as NAME` at the end there is no table.
    """

    sql: str
    table: str | None
    sql_span: Span
    table_span: Span | None
    span: Span
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Repartition:
    """`` run t as TableRepartition.`` where partitionNum="24" as u ``: a table is cut into partitions."""

    source: str
    options: tuple[Assignment, ...]
    table: str
    source_span: Span
    table_span: Span
    span: Span
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class RunLLM:
    """`` run command as LLM.`` where … ``: deploy or train, as its parameters say."""

    parameters: tuple[Assignment, ...]
    span: Span
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class ModelCommand:
    """`!byzerllm model remove NAME` and `model exists NAME`."""

    verb: Literal["remove", "exists"]
    name: str
    span: Span


Statement = Setup | SetVariable | Load | Select | Repartition | RunLLM | ModelCommand
