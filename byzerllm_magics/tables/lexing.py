"""A query's text as tokens, before it is parsed: full-width punctuation, commas too many, `${name}` in strings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any

from sqlglot import TokenError
from sqlglot.tokens import Token, TokenType

from .spark import SPARK
from .sql_error import SqlError

Note = Callable[[str, int], None]
"""Told what was tolerated, and its offset."""


_REFERENCE = re.compile(r"\$\{\s*([^\W\d]\w*)\s*\}")
_STRINGS = (TokenType.STRING, TokenType.RAW_STRING)
_PIECES = re.compile(
    r"""(?P<skipped>--[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`[^`]*`)"""
    r"""|(?P<open>['"`])|(?P<comma>，)|(?P<wide>[；（）“”‘’＝＜＞])|(?P<reference>\$\{[^}\s]*\}?)""",
    re.DOTALL,
)
_NARROW = dict(zip("；（）“”‘’＝＜＞", ";()\"\"''=<>", strict=True))


def tokens_of(sql: str, text_of: Callable[[str], str | None], names: Iterable[str], note: Note) -> list[Token]:
    """Return the tokens of a query, `${name}` in its strings replaced, once.

    What replaces a reference is part of a token already: it is never read as SQL, nor for further references.

    Args:
        sql: A query in Spark's dialect.
        text_of: The text of a name; None: undefined.
        names: Defined names, for the suggestion.
        note: Told of a full-width comma and of a comma before a closing bracket or `from`, which are tolerated.

    Raises:
        SqlError: a string without an end, other full-width punctuation, two commas, a reference outside of strings,
            an undefined name.
    """
    try:
        tokens = SPARK.tokenize(_narrow(sql, note))
    except TokenError as error:
        raise SqlError("the query cannot be read", where=" ".join(str(error).split())[:120]) from None
    known = tuple(names)
    return [_substituted(token, sql, text_of, known) for token in _without_spare_commas(tokens, note)]


def _narrow(sql: str, note: Note) -> str:
    """Return the text with commas of Chinese keyboards as the usual ones; every character keeps its place."""

    def one(match: re.Match[str]) -> str:
        text, at = match[0], match.start()
        if match["open"]:
            kind = "name" if text == "`" else "string"
            raise SqlError(f"this {kind} has no end", do=f"close it with {text}", offset=at)
        if match["wide"]:
            raise SqlError(f"{text} is full-width punctuation", do=f"write {_NARROW[text]}", offset=at)
        if match["reference"]:
            do = f'write "{text}"'
            raise SqlError(f"{text} is replaced inside quotes only", do=do, offset=at, length=len(text))
        if match["comma"]:
            note("a full-width comma ，was read as ,", at)
            return ","
        return text

    return _PIECES.sub(one, sql)


def _without_spare_commas(tokens: list[Token], note: Note) -> list[Token]:
    kept: list[Token] = []
    for token, following in zip_longest(tokens, tokens[1:]):
        if token.token_type == TokenType.COMMA and following is not None:
            if following.token_type == TokenType.COMMA:
                raise SqlError("nothing between two commas", do="remove one of them", offset=following.start)
            if following.token_type in (TokenType.R_PAREN, TokenType.FROM):
                note(f"a comma before {following.text} was left out", token.start)
                continue
        kept.append(token)
    return kept


def _substituted(token: Token, sql: str, text_of: Callable[[str], str | None], names: tuple[str, ...]) -> Token:
    if token.token_type not in _STRINGS or "${" not in token.text:
        return token

    def one(match: re.Match[str]) -> str:
        text = text_of(match[1])
        if text is None:
            raise _undefined(match[1], sql, token, names)
        return text

    text = _REFERENCE.sub(one, token.text)
    rest: dict[str, Any] = {name: getattr(token, name) for name in ("line", "col", "start", "end", "comments")}
    return Token(token.token_type, text, **rest)


def _undefined(name: str, sql: str, token: Token, names: tuple[str, ...]) -> SqlError:
    found = re.compile(rf"\$\{{\s*{name}\s*\}}").search(sql, token.start, token.end)
    begin, end = found.span() if found else (token.start, token.end + 1)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean ${{{near[0]}}}? Otherwise define" if near else "define"
    return SqlError(
        f"${{{name}}} is not defined",
        do=f"{hint} it first, by set or as a Python variable",
        offset=begin,
        length=end - begin,
    )
