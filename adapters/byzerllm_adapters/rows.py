"""Rows of the accepted data formats become messages.

| format   | columns                                              |
|----------|------------------------------------------------------|
| messages | `messages` = [{role, content}] (OpenAI)              |
| sharegpt | `conversations` = [{from, value}]                    |
| moss     | `conversation` = [{human, assistant}]                |
| alpaca   | `instruction`, `output`, maybe `input`, `history` = [[question, answer]] |
| text     | `text`                                               |
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from byzerllm_adapters.contract import Message
from byzerllm_adapters.errors import ByzerError

COLUMNS = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "moss": ("conversation",),
    "alpaca": ("instruction", "output"),
    "text": ("text",),
}
"""The columns a table needs to be of a format; the first format that fits wins."""

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


def detect_format(columns: Iterable[str]) -> str:
    """Return the format of a table with these columns: a key of `COLUMNS`.

    Raises:
        ByzerError: No format fits; it names the columns seen and the accepted ones.
    """
    seen = list(columns)
    for name, needed in COLUMNS.items():
        if set(needed) <= set(seen):
            return name
    accepted = "; ".join(f"{' + '.join(needed)} ({name})" for name, needed in COLUMNS.items())
    raise ByzerError(
        f"no data format has the columns {', '.join(seen) or '(none)'}",
        do=f"rename them to one of: {accepted}",
    )


def to_messages(row: Mapping[str, Any], format: str) -> list[Message]:
    """Return the conversation that a row of this format holds; the text of the cells is left as it is.

    Raises:
        ByzerError: The row does not fit; it names the cell (the caller knows the row's number).
    """
    match format:
        case "messages":
            return [_turn(turn, "role", "content") for turn in _list(row, "messages")]
        case "sharegpt":
            return [_turn(turn, "from", "value") for turn in _list(row, "conversations")]
        case "moss":
            pairs = [(_text(turn, "human"), _text(turn, "assistant")) for turn in _list(row, "conversation")]
            return _pairs(pairs)
        case "alpaca":
            return _alpaca(row)
        case "text":
            raise ByzerError(
                "a row of plain text holds no conversation",
                do="pretrain on it, or give instruction and output",
            )
    raise ByzerError(f"unknown data format {format!r}", do=f"known: {', '.join(COLUMNS)}")


def _alpaca(row: Mapping[str, Any]) -> list[Message]:
    history = [] if _absent(row.get("history")) else _items(row["history"], "history")
    pairs = []
    for number, pair in enumerate(history, 1):
        turn = _items(pair, f"history[{number}]")
        if len(turn) != 2:
            raise ByzerError(f"history[{number}] holds {len(turn)} texts, not a question and an answer")
        named = {f"history[{number}] question": turn[0], f"history[{number}] answer": turn[1]}
        question, answer = (_text(named, name) for name in named)
        pairs.append((question, answer))
    question = _text(row, "instruction")
    if not _absent(row.get("input")) and str(row["input"]).strip():
        question += "\n" + _text(row, "input")
    return _pairs([*pairs, (question, _text(row, "output"))])


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[Message]:
    return [
        Message(role=role, content=content)
        for pair in pairs
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]


def _turn(turn: object, role_name: str, text_name: str) -> Message:
    if not isinstance(turn, Mapping):
        raise ByzerError(f"a turn is a {type(turn).__name__}, not {{{role_name}, {text_name}}}")
    role = _text(turn, role_name)
    if role not in ROLES:
        raise ByzerError(f"unknown {role_name} {role!r}", do=f"known: {', '.join(ROLES)}")
    return Message(role=ROLES[role], content=_text(turn, text_name))


def _list(row: Mapping[str, Any], name: str) -> list[Any]:
    turns = _items(row.get(name), name)
    if not turns:
        raise ByzerError(f"{name} is empty")
    return turns


def _items(value: object, name: str) -> list[Any]:
    if hasattr(value, "tolist"):  # Arrow and pandas hand lists over as numpy arrays
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ByzerError(f"{name} is {_kind(value)}, not a list")
    return list(value)


def _text(row: object, name: str) -> str:
    value = row.get(name) if isinstance(row, Mapping) else None
    if not isinstance(value, str):
        raise ByzerError(f"{name} is {_kind(value)}, not text")
    if not value.strip():
        raise ByzerError(f"{name} is empty")
    return value


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _kind(value: object) -> str:
    return "missing" if _absent(value) else f"a {type(value).__name__}"
