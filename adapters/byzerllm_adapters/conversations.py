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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from byzerllm_adapters.contract import Message
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.outlines import Outline, outline, prompts_of
from byzerllm_adapters.pieces import Piece, begin_pieces, bos_written, encode_all, encode_pieces, with_bos
from byzerllm_adapters.rendering import Span, Tools
from byzerllm_adapters.rows import to_messages, tools_of
from byzerllm_adapters.templates import frame, has_markers, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example, and for each whether the loss applies to it (not shifted)."""

    ids: list[int]
    mask: list[bool]


Begun: TypeAlias = Callable[[], list[Encoded | ByzerError]]
"""Waits for what each of many became; for one that does not fit, why."""


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
    prompts = prompts_of(tokenizer, messages, tools, roles)
    starts = sorted(len(prompt) for _, prompt in prompts if text.startswith(prompt))
    return [token for ids in encode_pieces(tokenizer, _pieces(text, starts)) for token in ids]


def encode_written_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Return the ids of a prompt that is written out, marks of the model's turns included."""
    [ids] = encode_pieces(tokenizer, [(prompt, True)])
    return ids


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
    [found] = encode_conversations(tokenizer, [messages], max_length, [tools], [first])
    if isinstance(found, ByzerError):
        raise found
    return found


def encode_conversations(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    max_length: int | None = None,
    tools: Sequence[Tools | None] | None = None,
    firsts: Sequence[int] | None = None,
) -> list[Encoded | ByzerError]:
    """Return for each conversation what `encode_conversation` returns or raises; many at once are much faster."""
    return begin_conversations(tokenizer, conversations, max_length, tools, firsts)()


def begin_conversations(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    max_length: int | None = None,
    tools: Sequence[Tools | None] | None = None,
    firsts: Sequence[int] | None = None,
) -> Begun:
    """Render conversations and begin to tokenise them; meanwhile the next ones can be begun.

    Args:
        max_length: As of `encode_conversation`.
        tools: Each one's; None: none has any.
        firsts: Each one's; None: every answer of all has the loss.
    """
    marked, count = has_markers(tokenizer), len(conversations)
    given = zip(conversations, tools or [None] * count, firsts or [0] * count, strict=True)
    found = [_outlined(tokenizer, *each, marked=marked) for each in given]
    encoded = _begun(tokenizer, [each for each in found if isinstance(each, Outline)], max_length)
    return lambda: _put_back(found, encoded())


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int | None = None) -> Encoded:
    """Return a plain text and its end-of-sequence token as ids, all learned but a BOS in front (rule 3).

    Raises:
        ByzerError: The tokenizer has no end-of-sequence token.
    """
    return encode_texts(tokenizer, [text], max_length)[0]


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None = None
) -> list[Encoded]:
    """Return what `encode_text` returns for each text; a text that ends with the end token gets no second one."""
    end = tokenizer.eos_token_id
    if end is None:
        raise ByzerError("the tokenizer has no end-of-sequence token", do="set eos_token in its tokenizer_config.json")
    bos, front = tokenizer.bos_token_id, bos_written(tokenizer)
    found = []
    for tokens in encode_all(tokenizer, texts):
        ids = with_bos(front, tokens)
        ids = ids if ids[-1:] == [end] else [*ids, end]
        mask = [ids[0] != bos, *[True] * (len(ids) - 1)]
        found.append(Encoded(ids[:max_length], mask[:max_length]))
    return found


def encode_row(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], format: str, max_length: int | None = None
) -> Encoded:
    """Return a row of any format as one example: a plain text, or else a conversation."""
    [found] = encode_rows(tokenizer, [row], format, max_length)
    if isinstance(found, ByzerError):
        raise found
    return found


def encode_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any] | ByzerError],
    format: str,
    max_length: int | None = None,
) -> list[Encoded | ByzerError]:
    """Return for each row what `encode_row` returns or raises; an error in place of a row stays as it is."""
    return begin_rows(tokenizer, rows, format, max_length)()


def begin_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any] | ByzerError],
    format: str,
    max_length: int | None = None,
) -> Begun:
    """Render rows and begin to tokenise them; call what is returned for what `encode_rows` returns of them."""
    read = [_content(row, format) for row in rows]
    fits = [content for content in read if not isinstance(content, ByzerError)]
    if format == "text":
        found = encode_texts(tokenizer, [text for text, _ in fits], max_length)
        return lambda: _put_back(read, found)
    begun = begin_conversations(tokenizer, [m for m, _ in fits], max_length, [tools for _, tools in fits])
    return lambda: _put_back(read, begun())


def _put_back(read: Sequence[object], encoded: Sequence[Encoded | ByzerError]) -> list[Encoded | ByzerError]:
    """Return the errors in a list, and what the rest of it became in the place of the rest."""
    others = iter(encoded)
    return [each if isinstance(each, ByzerError) else next(others) for each in read]


def _content(row: Mapping[str, Any] | ByzerError, format: str) -> tuple[Any, Tools | None] | ByzerError:
    """Return a row's text or messages, and its tools."""
    if isinstance(row, ByzerError):
        return row
    try:
        if format != "text":
            return to_messages(row, format), tools_of(row)
    except ByzerError as error:
        return error
    text = row.get("text")
    return (text, None) if isinstance(text, str) and text.strip() else ByzerError("text is empty or not text")


def _outlined(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools | None, first: int, *, marked: bool
) -> Outline | ByzerError:
    """Return a conversation's outline, or what `encode_conversation` raises."""
    try:
        return outline(tokenizer, messages, tools, first, marked=marked)
    except ByzerError as error:
        return error


def _begun(
    tokenizer: PreTrainedTokenizerBase, outlines: Sequence[Outline], max_length: int | None
) -> Callable[[], list[Encoded]]:
    cut = [_pieces(each.text, each.starts) for each in outlines]
    ids = begin_pieces(tokenizer, [piece for each in cut for piece in each])
    return lambda: _encoded(tokenizer, outlines, cut, ids(), max_length)


def _encoded(
    tokenizer: PreTrainedTokenizerBase,
    outlines: Sequence[Outline],
    cut: Sequence[Sequence[Piece]],
    ids: Sequence[list[int]],
    max_length: int | None,
) -> list[Encoded]:
    """Return each conversation's ids, and for each of them whether the loss covers it.

    Args:
        cut: Each one's pieces.
        ids: Each piece's.
    """
    pieces = [piece for each in cut for piece in each]
    spans = [local for each, own in zip(cut, outlines, strict=True) for local in _local(each, own.learned)]
    parts = zip(ids, _masks(tokenizer, pieces, ids, spans), strict=True)
    found = []
    for each in cut:
        tokens, masks = zip(*islice(parts, len(each)), strict=True)
        found.append(Encoded(_joined(tokens, max_length), _joined(masks, max_length)))
    return found


def _joined(parts: Iterable[list[T]], limit: int | None) -> list[T]:
    whole = list[T]()
    for part in parts:
        whole += part
    return whole[:limit]


def _pieces(text: str, starts: Sequence[int]) -> list[Piece]:
    """Return the text before the first start, and from each start to the next, and whether it is the first (rule 2)."""
    return [(text[begin:end], number == 0) for number, (begin, end) in enumerate(pairwise([0, *starts, len(text)]))]


def _local(pieces: Sequence[Piece], spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Yield for each piece of a text the spans that reach into it, counted from its beginning."""
    at = 0
    for piece, _ in pieces:
        end = at + len(piece)
        yield [(max(a - at, 0), min(b, end) - at) for a, b in spans if a < end and b > at]
        at = end


def _masks(
    tokenizer: PreTrainedTokenizerBase,
    pieces: Sequence[Piece],
    ids: Sequence[list[int]],
    spans: Sequence[Sequence[Span]],
) -> list[list[bool]]:
    """Return for each id of each piece whether it is in one of the piece's spans.

    As many tokens are before a place as the text up to there has in common with the whole piece.
    """
    places = [
        (number, place)
        for number, ((piece, _), own) in enumerate(zip(pieces, spans, strict=True))
        for place in {place for span in own for place in span}
        if 0 < place < len(piece)
    ]
    counted = {(number, at): _behind_end(tokenizer, pieces[number][0], ids[number], at) for number, at in places}
    before = {key: count for key, count in counted.items() if count is not None}
    asked = [key for key in places if key not in before]
    heads = encode_pieces(tokenizer, [(pieces[number][0][:place], pieces[number][1]) for number, place in asked])
    before |= {key: _common(head, ids[key[0]]) for key, head in zip(asked, heads, strict=True)}
    masks = []
    for number, ((piece, _), tokens, own) in enumerate(zip(pieces, ids, spans, strict=True)):
        mask, edges = [False] * len(tokens), {0: 0, len(piece): len(tokens)}
        for span in own:
            a, b = (edges[place] if place in edges else before[number, place] for place in span)
            mask[a:b] = [True] * (b - a)
        masks.append(mask)
    return masks


def _behind_end(tokenizer: PreTrainedTokenizerBase, piece: str, ids: list[int], place: int) -> int | None:
    """Return how many ids are before a place right behind the end-of-turn token, without tokenising the text up to it.

    None: it is another place, or the text has that token where the ids have not: inside another one.
    """
    end = frame(tokenizer)
    if end.end is None or end.end_id is None or not piece.endswith(end.end, 0, place):
        return None
    if ids.count(end.end_id) != piece.count(end.end):
        return None
    at = -1
    for _ in range(piece.count(end.end, 0, place)):
        at = ids.index(end.end_id, at + 1)
    return at + 1


def _common(one: list[int], other: list[int]) -> int:
    """Return how many ids both begin with."""
    if other[: len(one)] == one:
        return len(one)
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
