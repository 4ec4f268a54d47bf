"""Rows of preferences: a prompt, the answer that was chosen and the one that was rejected.

| prompt                | chosen, rejected                                                      |
|-----------------------|-----------------------------------------------------------------------|
| text, maybe `system` and `history` | texts, or lists of messages that begin with the answer   |
| list of messages      | texts, or lists of messages that begin with the answer                |
| none, or a part of the common beginning | lists of messages with a common beginning: the prompt |

A message is `{role, content}` (OpenAI) or `{from, value}` (ShareGPT), calls of tools included; a column `tools` is what
the template writes of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from byzerllm_adapters.contract import Message
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rows import to_messages, tools_of


@dataclass(frozen=True)
class Pair:
    """A prompt, and how it goes on: each begins with an answer, and they differ. `tools` belong to both."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: list[dict[str, Any]] | None = None


def check_columns(columns: Iterable[str]) -> None:
    """Refuse a table that cannot hold preferences.

    Raises:
        ByzerError: A column is missing; it names the columns seen.
    """
    seen = list(columns)
    missing = [name for name in ("chosen", "rejected") if name not in seen]
    if missing:
        raise ByzerError(
            f"preferences need a column {' and a column '.join(missing)}; there are: {', '.join(seen) or '(none)'}",
            do="rename them to prompt, chosen and rejected",
        )


def to_pair(row: Mapping[str, Any]) -> Pair:
    """Return the preference that a row holds; the text of the cells is left as it is.

    Raises:
        ByzerError: The row does not fit: a cell is empty or of another type, an answer is missing, both answers
            are the same, or they answer different prompts (the caller knows the row's number).
    """
    chosen, rejected = (_conversation(row, side) for side in ("chosen", "rejected"))
    if chosen == rejected:
        raise ByzerError("chosen and rejected are the same", do="drop the row: it prefers nothing")
    asked = [] if _absent(row.get("prompt")) else _conversation(row, "prompt")
    if _answers(chosen) and _answers(rejected):
        if not asked:
            raise ByzerError("prompt is missing", do="add it, or let chosen and rejected be whole conversations")
        prompt = asked
    else:
        same = takewhile(lambda turns: turns[0] == turns[1], zip(chosen, rejected, strict=False))
        prompt = [turn for turn, _ in same]
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
        if any(turn not in prompt for turn in asked):
            raise ByzerError("prompt is not how chosen and rejected begin", do="leave the column prompt out")
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if not side:
            raise ByzerError(f"{name} has no answer that the other has not")
        if not _answers(side):
            raise ByzerError(
                f"{name} goes on with a turn of the {side[0]['role']}, where its answer is expected",
                do="let chosen and rejected answer the same prompt",
            )
    return Pair([*_before(row, prompt), *prompt], chosen, rejected, tools_of(row))


def _conversation(row: Mapping[str, Any], name: str) -> list[Message]:
    """Return a cell's turns; a text is one of the user (prompt) or of the assistant."""
    value: Any = row.get(name)
    if isinstance(value, str):
        if not value.strip():
            raise ByzerError(f"{name} is empty")
        return [Message(role="user" if name == "prompt" else "assistant", content=value)]
    if isinstance(value, Mapping):
        value = [value]
    if hasattr(value, "tolist"):  # Arrow and pandas hand lists over as numpy arrays
        value = value.tolist()
    if _absent(value) or not isinstance(value, Sequence):
        kind = "missing" if _absent(value) else f"a {type(value).__name__}"
        raise ByzerError(f"{name} is {kind}, neither text nor a list of messages")
    column, form = "messages", "messages"
    if value and isinstance(value[0], Mapping) and "from" in value[0]:
        column, form = "conversations", "sharegpt"
    try:
        return to_messages({column: value}, form)
    except ByzerError as error:
        raise ByzerError(f"{name}: {error.what}", do=error.do) from None


def _before(row: Mapping[str, Any], prompt: Sequence[Message]) -> list[Message]:
    """Return the turns that the columns system and history put before a prompt."""
    before: list[Message] = []
    if not _absent(row.get("system")):
        [turn] = _conversation({"prompt": row["system"]}, "prompt")
        before.append(Message(role="system", content=turn["content"]))
        if prompt[0]["role"] == "system":
            raise ByzerError("the system message is given twice, in system and in the conversation")
    if not _absent(row.get("history")):
        if not isinstance(row.get("prompt"), str):
            raise ByzerError("history goes with a prompt that is text", do="write it into the list of messages")
        turns = to_messages({"instruction": "-", "output": "-", "history": row["history"]}, "alpaca")
        before += turns[:-2]
    return before


def _answers(turns: Sequence[Message]) -> bool:
    return turns[0]["role"] == "assistant"


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
