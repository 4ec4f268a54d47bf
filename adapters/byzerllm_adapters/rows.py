"""Rows of the accepted data formats become messages.

| format            | columns                                              |
|-------------------|------------------------------------------------------|
| messages          | `messages` = [{role, content}] (OpenAI), tool turns included |
| sharegpt          | `conversations` = [{from, value}]                    |
| moss              | `conversation` = [{human, assistant}]                |
| alpaca            | `instruction`, `output`, maybe `input`, `history` = [[question, answer]] |
| prompt-completion | `prompt`, `completion`: two texts, or two lists of messages |
| text              | `text`                                               |

A conversation may have a column `system`, which heads it, and a column `tools`, which its template writes. Lists
may be JSON texts. Null values inside turns and tools are left out: Arrow writes them where another row has a key.
"""

from __future__ import annotations

import json
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
    "prompt-completion": ("prompt", "completion"),
    "text": ("text",),
}
"""The columns a table needs to be of a format; the first format that fits wins."""

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""What a turn's role is called in the field, and in a chat template."""


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
    messages = _messages(row, format)
    if not _blank(row.get("system")) and messages[0]["role"] != "system":
        return [Message(role="system", content=_text(row, "system")), *messages]
    return messages


def tools_of(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the JSON schemas in a row's column `tools`; None: the row has none.

    Raises:
        ByzerError: It is no list of objects.
    """
    if _blank(row.get("tools")):
        return None
    tools = _items(row["tools"], "tools")
    for tool in tools:
        if not isinstance(tool, Mapping):
            raise ByzerError(f"tools holds {_kind(tool)}, not an object")
    return [_without_nulls(tool) for tool in tools] or None


def _messages(row: Mapping[str, Any], format: str) -> list[Message]:
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
        case "prompt-completion":
            return _prompt_and_completion(row)
        case "text":
            raise ByzerError(
                "a row of plain text holds no conversation",
                do="pretrain on it, or give instruction and output",
            )
    raise ByzerError(f"unknown data format {format!r}", do=f"known: {', '.join(COLUMNS)}")


def _alpaca(row: Mapping[str, Any]) -> list[Message]:
    history = [] if _blank(row.get("history")) else _items(row["history"], "history")
    pairs = []
    for number, pair in enumerate(history, 1):
        turn = _items(pair, f"history[{number}]")
        if len(turn) != 2:
            raise ByzerError(f"history[{number}] holds {len(turn)} texts, not a question and an answer")
        named = {f"history[{number}] question": turn[0], f"history[{number}] answer": turn[1]}
        question, answer = (_text(named, name) for name in named)
        pairs.append((question, answer))
    question = _text(row, "instruction")
    if not _blank(row.get("input")):
        question += "\n" + _text(row, "input")
    return _pairs([*pairs, (question, _text(row, "output"))])


def _prompt_and_completion(row: Mapping[str, Any]) -> list[Message]:
    """Return texts as a question and its answer, and messages as they are, of which the completion's are learned."""
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        return _pairs([(_text(row, "prompt"), _text(row, "completion"))])
    prompt = [_turn(turn, "role", "content") for turn in _list(row, "prompt")]
    for message in prompt:
        if message["role"] == "assistant":
            message["weight"] = 0
    return [*prompt, *(_turn(turn, "role", "content") for turn in _list(row, "completion"))]


def _pairs(pairs: Iterable[tuple[str, str]]) -> list[Message]:
    return [
        Message(role=role, content=content)
        for pair in pairs
        for role, content in zip(("user", "assistant"), pair, strict=True)
    ]


def _turn(turn: object, role_name: str, text_name: str) -> Message:
    if not isinstance(turn, Mapping):
        raise ByzerError(f"a turn is {_kind(turn)}, not {{{role_name}, {text_name}}}")
    written = _text(turn, role_name)
    if written not in ROLES:
        raise ByzerError(f"unknown {role_name} {written!r}", do=f"known: {', '.join(ROLES)}")
    if written == "function_call":
        return Message(role="assistant", content="", tool_calls=_calls(turn.get(text_name), text_name))
    calls = None if _absent(turn.get("tool_calls")) else _calls(turn["tool_calls"], "tool_calls")
    content = "" if calls and _absent(turn.get(text_name)) else _content(turn, text_name, bool(calls))
    message = Message(role=ROLES[written], content=content)
    if calls:
        message["tool_calls"] = calls
    for key in ("name", "tool_call_id", "reasoning_content", "weight"):
        if not _absent(turn.get(key)):
            message[key] = turn[key]
    if message.get("weight", 1) not in (0, 1):
        raise ByzerError(f"weight is {message['weight']!r}", do="write 1 to learn the answer, 0 to leave it out")
    return message


def _content(turn: Mapping[str, Any], name: str, may_be_empty: bool) -> str:
    """Return a turn's text, which may come as a list of parts."""
    value = turn[name].tolist() if hasattr(turn.get(name), "tolist") else turn.get(name)
    if isinstance(value, list):
        for number, part in enumerate(value, 1):
            kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
            if kind != "text" or not isinstance(part.get("text"), str):
                raise ByzerError(f"{name}[{number}] is {kind}, without text", do="models here learn text only")
        value = "".join(part["text"] for part in value)
    return value if may_be_empty and isinstance(value, str) else _text({name: value}, name)


def _calls(value: object, name: str) -> list[dict[str, Any]]:
    """Return the calls of tools in a turn as templates take them: OpenAI's shape, the arguments an object."""
    if isinstance(value, str):  # ShareGPT's function_call: one call, or a list of them, as JSON
        value = _json(value, name)
    calls = []
    for call in [value] if isinstance(value, Mapping) else _items(value, name):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ByzerError(f"{name} holds {_kind(call)}, not the call of a function with a name and arguments")
        arguments = function.get("arguments")
        arguments = _json(arguments, f"{name} arguments") if isinstance(arguments, str) else arguments
        if not isinstance(arguments or {}, Mapping):
            raise ByzerError(f"the arguments of {function['name']} are {_kind(arguments)}, not an object")
        named = {"name": function["name"], "arguments": _without_nulls(arguments or {})}
        ids = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
        calls.append({**ids, "type": "function", "function": named})
    return calls


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ByzerError(f"{name} is not JSON: {text[:60]!r}") from None


def _without_nulls(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list | tuple) else value


def _list(row: Mapping[str, Any], name: str) -> list[Any]:
    turns = _items(row.get(name), name)
    if not turns:
        raise ByzerError(f"{name} is empty")
    return turns


def _items(value: object, name: str) -> list[Any]:
    if isinstance(value, str) and value.lstrip().startswith("["):  # a column of a CSV file
        value = _json(value, name)
    if hasattr(value, "tolist"):  # Arrow and pandas hand lists over as numpy arrays
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ByzerError(f"{name} is missing" if _absent(value) else f"{name} is {_kind(value)}, not a list")
    return list(value)


def _text(row: object, name: str) -> str:
    value = row.get(name) if isinstance(row, Mapping) else None
    if not isinstance(value, str):
        raise ByzerError(f"{name} is missing" if _absent(value) else f"{name} is {_kind(value)}, not text")
    if not value.strip():
        raise ByzerError(f"{name} is empty")
    return value


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _blank(value: object) -> bool:
    return _absent(value) or (isinstance(value, str) and not value.strip())


def _kind(value: object) -> str:
    return "missing" if _absent(value) else f"a {type(value).__name__}"
