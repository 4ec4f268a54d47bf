"""A rendered conversation in characters: where each answer starts, and what of it the loss covers.

The rules are in `conversations`, which makes ids of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from byzerllm_adapters.contract import Message
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rendering import Span, Tools
from byzerllm_adapters.templates import added_token_at, ends_a_turn, frame, render, render_marked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINKING = re.compile(r"</?think>")
"""Where templates take an answer apart."""


@dataclass(frozen=True)
class Outline:
    """A rendered conversation: where its answers' turns start, and the spans of it that the loss covers."""

    text: str
    starts: list[int]
    learned: list[Span]


def outline(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools | None, first: int, *, marked: bool
) -> Outline:
    """Render a conversation and find its answers.

    Args:
        tools: What the row's column `tools` says.
        first: Only answers among `messages[first:]` have the loss.
        marked: Whether the template has generation markers.

    Raises:
        ByzerError: As `conversations.encode_conversation`.
    """
    text, spans = _rendered(tokenizer, messages, tools, marked)
    _refuse_left_out(text, messages, tools)
    starts = dict[int, int]()
    for number, prompt in prompts_of(tokenizer, messages, tools):
        if not text.startswith(prompt):
            raise _unstable(number)
        starts[number] = len(prompt)
    if not any(_is_learned(messages, number, first) for number in starts):
        raise _without_answer()
    learned = list[Span]()
    for (number, start), stop in zip(starts.items(), [*list(starts.values())[1:], len(text)], strict=True):
        if marked:
            turn = [span for span in spans if start < span[1] <= stop]
        else:
            turn = _turn(tokenizer, messages, number, text, (start, stop), tools=tools)
        if not any(ends_a_turn(tokenizer, text[slice(*span)]) for span in turn):
            raise _endless(number)
        learned += turn if _is_learned(messages, number, first) else []
    return Outline(text, list(starts.values()), learned)


def prompts_of(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Tools | None,
    roles: Mapping[str, str] | None = None,
) -> list[tuple[int, str]]:
    """Return, for each assistant turn, its index and the rendered prompt that it answers."""
    turns = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if turns[:1] == [0]:
        raise ByzerError("the conversation starts with an answer", do="let a user turn come first, or drop the answer")
    return [(number, render(tokenizer, messages[:number], True, tools, roles)) for number in turns]


def refuse_without_answer(messages: Sequence[Message]) -> None:
    """Refuse a conversation in which there is nothing to learn, before it is rendered.

    Raises:
        ByzerError: no turn is the assistant's, or none is to be learned.
    """
    if not any(each["role"] == "assistant" and _is_learned(messages, at, 0) for at, each in enumerate(messages)):
        raise _without_answer()


def _is_learned(messages: Sequence[Message], number: int, first: int) -> bool:
    return number >= first and bool(messages[number].get("weight", 1))


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools | None, marked: bool
) -> tuple[str, list[Span]]:
    """Return a whole conversation, its last answer ended, and what the template marks in it."""
    if marked:
        return render_marked(tokenizer, messages, tools)
    around, text = frame(tokenizer), render(tokenizer, messages, False, tools)
    ended = messages[-1]["role"] != "assistant" or not around.opens_next
    return text if ended else text + str(around.end), []


def _turn(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    number: int,
    text: str,
    room: Span,
    *,
    tools: Tools | None,
) -> list[Span]:
    """Return where a template without markers writes an answer in the text of the whole conversation.

    Args:
        number: The answer's among the messages.
        room: From where its prompt ends to where the next answer begins, or the text ends.

    Returns:
        One span; none where no end token follows, or the template writes less than the answer.
    """
    around, (start, end) = frame(tokenizer), room
    if around.end is None:
        return []
    if number < len(messages) - 1:
        alone = render(tokenizer, messages[: number + 1], False, tools)
        if around.opens_next:
            token = added_token_at(tokenizer, text[len(alone) :])
            end = len(alone) + len(token) if token and text.startswith(alone) else start
        else:
            # An answer may quote the end token: as many as close the turn where it stands last are in it here.
            end = _after_occurrence(text, around.end, alone[start:].count(around.end), room)
            end += len(around.after) if text.startswith(around.after, end) else 0
    parts = (part.strip() for part in THINKING.split(messages[number]["content"]))
    return [(start, end)] if end > start and all(part in text[start:end] for part in parts) else []


def _after_occurrence(text: str, token: str, count: int, room: Span) -> int:
    """Return where the n-th occurrence of a token in `room` ends; its beginning, when there are not as many."""
    end = room[0]
    for _ in range(count):
        found = text.find(token, end, room[1])
        if found < 0:
            return room[0]
        end = found + len(token)
    return end


def _refuse_left_out(text: str, messages: Sequence[Message], tools: Tools | None) -> None:
    """Refuse a conversation of which the template writes less than there is.

    Raises:
        ByzerError: A message, the call of a tool or a tool is not in the text.
    """
    for number, message in enumerate(messages, 1):
        content, role = message["content"].strip(), message["role"]
        if role != "assistant" and content not in text and json.dumps(content, ensure_ascii=False)[1:-1] not in text:
            raise _left_out(f"message {number} ({role})")
        if any(call["function"]["name"] not in text for call in message.get("tool_calls", ())):
            raise _left_out(f"the tool calls of message {number}")
    if any(str(tool.get("function", tool).get("name", "")) not in text for tool in tools or ()):
        raise _left_out("the column tools")


def _without_answer() -> ByzerError:
    return ByzerError("the conversation has no assistant turn to learn from")


def _unstable(number: int) -> ByzerError:
    return ByzerError(
        f"the chat template changes what comes before message {number + 1} once the conversation goes on",
        do="train on the turns as separate rows, or give the tokenizer another chat template",
    )


def _endless(number: int) -> ByzerError:
    return ByzerError(
        f"no end-of-turn token follows the answer in message {number + 1}, or the template rewrites it",
        do="a model would not learn to stop: use a chat template that ends every answer with an end token",
    )


def _left_out(what: str) -> ByzerError:
    return ByzerError(
        f"the chat template leaves out {what}",
        do="drop it from the row, or give the tokenizer a chat template that has a place for it",
    )
