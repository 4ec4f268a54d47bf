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

The loss covers the assistant's turn from its start to its end-of-turn token. A template with generation
markers says itself where that is; for others it is where the answer's text is followed by the end token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.contract import Message
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rows import detect_format, to_messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Encoded",
    "Frame",
    "Message",
    "detect_format",
    "encode_conversation",
    "encode_prompt",
    "encode_row",
    "encode_text",
    "ensure_template",
    "frame",
    "render",
    "to_messages",
]

MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""What opens an assistant's turn in a template that marks them, as transformers looks for it."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example, and for each whether the loss applies to it (not shifted)."""

    ids: list[int]
    mask: list[bool]


@dataclass(frozen=True)
class Frame:
    """What a template writes around an answer: white space before and after it, then the end-of-turn token.

    `end` and `end_id` are None when no added token of the tokenizer closes an answer.
    """

    lead: str
    gap: str
    end: str | None
    end_id: int | None


def ensure_template(tokenizer: PreTrainedTokenizerBase, default: str) -> None:
    """Give the tokenizer the adapter's default chat template where it has none.

    Raises:
        ByzerError: The tokenizer has no end-of-sequence token, which the default templates write.
    """
    if tokenizer.chat_template is not None:
        return
    if tokenizer.eos_token is None:
        raise ByzerError(
            "the tokenizer has neither a chat template nor an end-of-sequence token",
            do="set eos_token in its tokenizer_config.json",
        )
    tokenizer.chat_template = default


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool) -> str:
    """Return the conversation as the tokenizer's chat template writes it.

    Raises:
        ByzerError: The template refuses the conversation, e.g. a role, or roles that do not alternate.
    """
    return _render(tokenizer, messages, add_generation_prompt, spans=False)[0]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Return the ids that a model is fed to generate the answer to `messages`.

    A template that rewrites earlier turns as a conversation goes on still serves; it only does not train.
    """
    text = render(tokenizer, messages, True)
    starts = sorted(len(prompt) for _, prompt in _prompts(tokenizer, messages) if text.startswith(prompt))
    return [token for piece in _pieces(tokenizer, text, starts) for token in piece]


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], max_length: int | None = None, first: int = 0
) -> Encoded:
    """Return a whole conversation as ids, with the loss on each answer and its end-of-turn token only.

    Args:
        first: Only answers among `messages[first:]` have the loss.
        max_length: Cut at the right to this many tokens. The mask may then be all False; the caller counts
            such.

    Raises:
        ByzerError: There is no answer, an answer has no end-of-turn token, or the template writes an earlier
            turn in another way once the conversation goes on (the model would never be prompted with what it
            learned).
    """
    text, spans = _render(tokenizer, messages, False, spans=_has_markers(tokenizer))
    starts, answers = [], []
    for number, prompt in _prompts(tokenizer, messages):
        if not text.startswith(prompt):
            raise _unstable(number)
        starts.append(len(prompt))
        answers.append((number, messages[number]["content"]))
    if not starts:
        raise ByzerError("the conversation has no assistant turn to learn from")
    end = frame(tokenizer)
    pieces = _pieces(tokenizer, text, starts)
    ids, mask = list(pieces[0]), [False] * len(pieces[0])
    for (number, answer), start, stop, piece in zip(answers, starts, [*starts[1:], len(text)], pieces[1:], strict=True):
        learned = _learned(text[start:stop], answer, _local(spans, start, stop), end, piece)
        if learned == 0:
            raise _endless(number)
        ids += piece
        learned = learned if number >= first else 0
        mask += [True] * learned + [False] * (len(piece) - learned)
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
        return encode_conversation(tokenizer, to_messages(row, format), max_length)
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise ByzerError("text is empty or not text")
    return encode_text(tokenizer, text, max_length)


def frame(tokenizer: PreTrainedTokenizerBase) -> Frame:
    """Return what the tokenizer's template writes around an answer, found by rendering one."""
    return _frame(tokenizer, _template(tokenizer))


@lru_cache(maxsize=16)
def _frame(tokenizer: PreTrainedTokenizerBase, template: str) -> Frame:
    question, answer = Message(role="user", content="question"), Message(role="assistant", content="answer")
    prompt, text = render(tokenizer, [question], True), render(tokenizer, [question, answer], False)
    if not text.startswith(prompt) or answer["content"] not in text[len(prompt) :]:
        return Frame("", "", None, None)
    lead, _, tail = text[len(prompt) :].rpartition(answer["content"])
    added = {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items()}
    found = min((token for token in added if token in tail), key=lambda t: (tail.index(t), -len(t)), default=None)
    gap = tail if found is None else tail[: tail.index(found)]
    if found is None or gap.strip():
        return Frame(lead if lead.isspace() else "", "", None, None)
    return Frame(lead if lead.isspace() else "", gap, found, added[found])


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool, spans: bool
) -> tuple[str, list[tuple[int, int]] | None]:
    """Return the rendering, and the character spans of its `{% generation %}` blocks when asked for."""
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, found = render_jinja_template(
            conversations=[list(messages)],
            chat_template=_template(tokenizer),
            add_generation_prompt=add_generation_prompt,
            return_assistant_tokens_mask=spans,
            **tokenizer.special_tokens_map,
        )
    except TemplateError as error:
        raise ByzerError(f"the chat template refuses the conversation: {error}") from error
    return texts[0], found[0] if spans else None


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    if tokenizer.chat_template is None:
        raise ByzerError("the tokenizer has no chat template", do="load it by its family's load_tokenizer")
    return str(tokenizer.get_chat_template())


def _has_markers(tokenizer: PreTrainedTokenizerBase) -> bool:
    return MARKER.search(_template(tokenizer)) is not None


def _prompts(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[tuple[int, str]]:
    """Return, for each assistant turn, its index and the rendered prompt that it answers."""
    turns = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if turns[:1] == [0]:
        raise ByzerError("the conversation starts with an answer", do="let a user turn come first, or drop the answer")
    return [(number, render(tokenizer, messages[:number], True)) for number in turns]


def _pieces(tokenizer: PreTrainedTokenizerBase, text: str, starts: Sequence[int]) -> list[list[int]]:
    """Return the ids of the text before the first start, and from each start to the next (rules 2, 3)."""
    bounds = [*starts, len(text)]
    first = _with_bos(tokenizer, tokenizer.encode(text[: bounds[0]], add_special_tokens=False))
    rest = [_encode_middle(tokenizer, text[a:b]) for a, b in pairwise(bounds)]
    return [first, *rest]


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


def _local(spans: list[tuple[int, int]] | None, start: int, stop: int) -> int | None:
    """Return where the marked text of the turn `[start, stop)` ends, counted from `start`."""
    if spans is None:
        return None
    return max((end - start for _, end in spans if start < end <= stop), default=0)


def _learned(turn: str, answer: str, marked: int | None, around: Frame, ids: list[int]) -> int:
    """Return how many ids of a turn the loss covers: up to its end-of-turn token; 0 when there is none.

    Args:
        turn: The text from the start of the answer to the start of the next answer (or the end).
        answer: The message's content.
        marked: Where the template's `{% generation %}` block ends; None for a template without.
        ids: The ids of `turn`.
    """
    if around.end is None:
        return 0
    if marked is None:
        tail = around.gap + around.end
        ends = [at + len(form + tail) for form in (answer, answer.strip()) if (at := turn.find(form + tail)) >= 0]
        marked = min(ends, default=0)
    # An answer may quote the end token: the last one in its text, not the first, ends it.
    count = turn.count(around.end, 0, marked)
    places = [place for place, token in enumerate(ids, 1) if token == around.end_id]
    return places[count - 1] if 0 < count <= len(places) else 0


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
