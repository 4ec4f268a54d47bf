"""Texts become token ids, many at once, cut where no merge may cross (rules 2 and 3 of `conversations`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Piece: TypeAlias = tuple[str, bool]
"""A part of a text that is tokenised by itself, and whether the text begins with it."""


def encode_pieces(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> list[list[int]]:
    """Return each piece's ids (rules 2, 3)."""
    firsts = iter(encode_all(tokenizer, [text for text, first in pieces if first]))
    middles = iter(_encode_middles(tokenizer, [text for text, first in pieces if not first]))
    bos = bos_written(tokenizer)
    return [with_bos(bos, next(firsts)) if first else next(middles) for _, first in pieces]


def begin_pieces(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> Callable[[], list[list[int]]]:
    """Begin to do what `encode_pieces` does, in a thread; call what is returned to wait for it.

    A fast tokenizer holds no lock of Python's: meanwhile others can be rendered, which takes about as long.
    """
    return _thread().submit(encode_pieces, tokenizer, pieces).result


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="tokenise")


def _encode_middles(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str]) -> list[list[int]]:
    """Tokenise middles of texts: after a newline, whose own ids are taken away again."""
    if not _spaces_front(tokenizer):
        return encode_all(tokenizer, pieces)
    [newline] = encode_all(tokenizer, ["\n"])
    found = encode_all(tokenizer, ["\n" + piece for piece in pieces])
    return [
        ids[len(newline) :] if ids[: len(newline)] == newline else encode_all(tokenizer, [piece])[0]
        for piece, ids in zip(pieces, found, strict=True)
    ]


def encode_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return each text's ids without special tokens, as `tokenizer.encode` does.

    A fast tokenizer's backend is asked itself: what transformers makes of its answer besides the ids costs as much
    as tokenising does.
    """
    if not tokenizer.is_fast or tokenizer.split_special_tokens:
        return [list(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:  # as its file may say
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


@lru_cache(maxsize=16)
def _spaces_front(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a space in front of a text (sentencepiece's dummy prefix)."""
    alone, newline, after = (tokenizer.encode(text, add_special_tokens=False) for text in ("a", "\n", "\na"))
    return bool(after[: len(newline)] == newline and after[len(newline) :] != alone)


def with_bos(bos: int | None, ids: list[int]) -> list[int]:
    """Return a text's ids with BOS in front where rule 3 wants it.

    Args:
        bos: Of `bos_written`.
        ids: The text's.
    """
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def bos_written(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the BOS that the tokenizer itself puts in front of a plain text; None: it puts none there."""
    return tokenizer.bos_token_id if _writes_bos(tokenizer) else None


@lru_cache(maxsize=16)
def _writes_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer.encode("a", add_special_tokens=True)[:1] == [bos]
