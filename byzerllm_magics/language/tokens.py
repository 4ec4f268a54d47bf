"""A text's tokens: what the grammar's lexer finds, which steps over SQL."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .places import Lines
from .sql import Reading, first_word, read_sql

if TYPE_CHECKING:
    from lark import Lark, Token


class Tokens:
    """The tokens of a text. In place of an SQL statement and its `;` stands one token SQL: its first word.

    What was read of that statement is in `queries`, by the token's offset.
    """

    def __init__(self, lines: Lines) -> None:
        self.queries: dict[int, Reading] = {}
        self.tokens = list(self._lexed(lines))

    def _lexed(self, lines: Lines) -> Iterator[Token]:
        thread: Any = grammar().parse_interactive(lines.text, start="noise").lexer_thread  # lark types it loosely
        previous: Token | None = None
        for token in thread.lex(None):
            if _may_begin_sql(token, previous) and (word := first_word(lines.text, token.start_pos)):
                reading = self.queries[token.start_pos] = read_sql(lines, token.start_pos)
                thread.state.line_ctr.feed(lines.text[token.end_pos : reading.end])
                previous = token.update("SQL", word)
                previous.end_pos = token.start_pos + len(word)
            else:
                previous = token
            yield previous


def _may_begin_sql(token: Token, previous: Token | None) -> bool:
    """Return whether a statement may begin with this token.

    It does after a `;`; and where that is missing, on a line of its own or behind a quoted value.
    """
    if previous is None or previous.type in ("SEMICOLON", "SQL", "QUOTED"):
        return True
    return previous.type != "_EQ" and token.line != previous.end_line


@cache
def grammar() -> Lark:
    """Return the parser of `language.lark`, made when the first cell is read."""
    from lark import Lark

    text = Path(__file__).with_name("language.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer="basic", start=["statement", "setup_body", "run_body", "noise"])
