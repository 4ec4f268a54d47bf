"""The one place where a conversation becomes token ids, for training, serving and the inspector alike.

Three rules make what a deployed model is prompted with equal to what it was trained on:

1. *Where a turn starts.* The assistant's turn k starts where the rendering of `messages[:k]` with the
   generation prompt ends. That rendering has to be a prefix of the whole conversation's, or the conversation
   is refused for training.
2. *Pieces.* The rendered text is cut at those starts, and each piece is tokenised by itself, so no merge of
   the tokenizer crosses the border between a prompt and what is generated after it. A piece other than the
   first is tokenised as the middle of a text: without the space that sentencepiece puts in front of a text.
3. *BOS.* The ids start with BOS once: where the template writes it, or else where the tokenizer puts it in
   front of any plain text (what the model saw in pretraining). A BOS token that neither of them uses is not
   added.

The loss covers what the template writes for the assistant's turn after its prompt, the end-of-turn token included. A
template with generation markers says itself where that is, token for token as transformers (and TRL) read them; for
others the turn ends with the end token and the white space that the template always writes behind it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.contract import Message
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rows import to_messages, tools_of
from byzerllm_adapters.templates import (
    Span,
    Tools,
    added_token_at,
    ends_a_turn,
    frame,
    has_markers,
    render,
    render_marked,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINKING = re.compile(r"</?think>")
"""Where templates take an answer apart."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example, and for each whether the loss applies to it (not shifted)."""

    ids: list[int]
    mask: list[bool]


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Tools | None = None,
    roles: Mapping[str, str] | None = None,
) -> list[int]:
    """Return the ids that a model is fed to generate the answer to `messages`.

    A template that rewrites earlier turns as a conversation goes on still serves; it only does not train.
    """
    text = render(tokenizer, messages, True, tools, roles)
    prompts = _prompts(tokenizer, messages, tools, roles)
    starts = sorted(len(prompt) for _, prompt in prompts if text.startswith(prompt))
    return [token for piece, first in _pieces(text, starts) for token in _encode(tokenizer, piece, first)]


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    max_length: int | None = None,
    tools: Tools | None = None,
    first: int = 0,
) -> Encoded:
    """Return a whole conversation as ids, with the loss on the assistant's turns only (see the module).

    Args:
        max_length: Cut at the right to this many tokens. The mask may then be all False; the caller counts
            such.
        tools: What the row's column `tools` says.
        first: Only answers among `messages[first:]` have the loss.

    Raises:
        ByzerError: There is no answer, an answer has no end-of-turn token, the template leaves out something
            that the row says, or it writes an earlier turn in another way once the conversation goes on (the
            model would never be prompted with what it learned).
    """
    marked = has_markers(tokenizer)
    text, spans = _rendered(tokenizer, messages, tools, marked)
    _refuse_left_out(text, messages, tools)
    starts = dict[int, int]()
    for number, prompt in _prompts(tokenizer, messages, tools):
        if not text.startswith(prompt):
            raise _unstable(number)
        starts[number] = len(prompt)
    if not any(_is_learned(messages, number, first) for number in starts):
        raise ByzerError("the conversation has no assistant turn to learn from")
    learned = list[Span]()
    for (number, start), stop in zip(starts.items(), [*list(starts.values())[1:], len(text)], strict=True):
        if marked:
            turn = [span for span in spans if start < span[1] <= stop]
        else:
            turn = _turn(tokenizer, messages, number, text, (start, stop), tools=tools)
        if not any(ends_a_turn(tokenizer, text[slice(*span)]) for span in turn):
            raise _endless(number)
        learned += turn if _is_learned(messages, number, first) else []
    ids, mask, at = list[int](), list[bool](), 0
    for piece, begins in _pieces(text, list(starts.values())):
        tokens = _encode(tokenizer, piece, begins)
        ids += tokens
        mask += _learned(tokenizer, piece, tokens, [(a - at, b - at) for a, b in learned], begins)
        at += len(piece)
    return Encoded(ids[:max_length], mask[:max_length])


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int | None = None) -> Encoded:
    """Return a plain text and its end-of-sequence token as ids, all learned but a BOS in front (rule 3).

    Raises:
        ByzerError: The tokenizer has no end-of-sequence token.
    """
    if tokenizer.eos_token_id is None:
        raise ByzerError("the tokenizer has no end-of-sequence token", do="set eos_token in its tokenizer_config.json")
    ids = [*_with_bos(tokenizer, tokenizer.encode(text, add_special_tokens=False)), tokenizer.eos_token_id]
    mask = [ids[0] != tokenizer.bos_token_id, *[True] * (len(ids) - 1)]
    return Encoded(ids[:max_length], mask[:max_length])


def encode_row(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], format: str, max_length: int | None = None
) -> Encoded:
    """Return a row of any format as one example: a plain text, or else a conversation."""
    if format != "text":
        return encode_conversation(tokenizer, to_messages(row, format), max_length, tools_of(row))
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise ByzerError("text is empty or not text")
    return encode_text(tokenizer, text, max_length)


def _prompts(
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


def _pieces(text: str, starts: Sequence[int]) -> Iterator[tuple[str, bool]]:
    """Yield the text before the first start, and from each start to the next, and whether it is the first (rule 2)."""
    for begin, end in pairwise([0, *starts, len(text)]):
        yield text[begin:end], begin == 0


def _encode(tokenizer: PreTrainedTokenizerBase, piece: str, first: bool) -> list[int]:
    """Return the ids of a piece (rules 2, 3)."""
    if first:
        return _with_bos(tokenizer, tokenizer.encode(piece, add_special_tokens=False))
    return _encode_middle(tokenizer, piece)


def _learned(
    tokenizer: PreTrainedTokenizerBase, piece: str, ids: list[int], spans: Sequence[Span], first: bool
) -> list[bool]:
    """Return for each id of a piece whether it is in one of the spans, which count from the piece's beginning."""
    mask = [False] * len(ids)

    def tokens_before(place: int) -> int:
        if place <= 0 or place >= len(piece):
            return 0 if place <= 0 else len(ids)
        before = _encode(tokenizer, piece[:place], first)
        return next((n for n, (one, other) in enumerate(zip(before, ids, strict=False)) if one != other), len(before))

    for begin, end in spans:
        if begin < len(piece) and end > 0:
            a, b = tokens_before(begin), tokens_before(end)
            mask[a:b] = [True] * (b - a)
    return mask


def _encode_middle(tokenizer: PreTrainedTokenizerBase, piece: str) -> list[int]:
    """Tokenise the middle of a text: after a newline, whose own ids are taken away again."""
    if _spaces_front(tokenizer):
        newline = tokenizer.encode("\n", add_special_tokens=False)
        ids = tokenizer.encode("\n" + piece, add_special_tokens=False)
        if ids[: len(newline)] == newline:
            return list(ids[len(newline) :])
    return list(tokenizer.encode(piece, add_special_tokens=False))


@lru_cache(maxsize=16)
def _spaces_front(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a space in front of a text (sentencepiece's dummy prefix)."""
    alone, newline, after = (tokenizer.encode(text, add_special_tokens=False) for text in ("a", "\n", "\na"))
    return bool(after[: len(newline)] == newline and after[len(newline) :] != alone)


def _with_bos(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    bos = tokenizer.bos_token_id
    return [bos, *ids] if _writes_bos(tokenizer) and ids[:1] != [bos] else list(ids)


@lru_cache(maxsize=16)
def _writes_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts its BOS in front of a plain text."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer.encode("a", add_special_tokens=True)[:1] == [bos]


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
