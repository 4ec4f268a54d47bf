"""sqlglot's complaints of a query's text in the words of its readers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from sqlglot import ParseError, exp
from sqlglot.tokens import Token, TokenType

from .sql_error import SqlError

_CLAUSES = ("from", "where", "group", "having", "order", "limit", "join", "union", "lateral", "window")
_CALLS = (exp.Func, exp.AtTimeZone, exp.FromTimeZone)
"""What functions are read as; the others are operators."""

_MISSING = re.compile(r"Required keyword: '(\w+)' missing for <class '(?:\w+\.)*(\w+)'>")
_TOO_MANY = re.compile(r"provided arguments \((\d+)\) is greater than .* \((\d+)\)")


def syntax_error(sql: str, tokens: Sequence[Token], error: ParseError) -> SqlError:
    """Return what is wrong with a query's text, at its place.

    Args:
        sql: The text.
        tokens: Its tokens.
        error: As sqlglot raised it.
    """
    first = error.errors[0]
    mark = str(first["highlight"] or "")
    description = str(first["description"] or "")
    offset = _offset(sql, first["line"], first["col"], mark)
    at = next((k for k, token in enumerate(tokens) if token.start == offset), len(tokens) - 1)
    if found := _wrong_call(description, tokens, at) or _misspelt(tokens[max(0, at - 1) : at + 1]):
        return found
    if missing := _MISSING.search(description):
        what = f"something is missing after {mark}" if missing[1] == "this" else f"{mark} lacks its {missing[1]}"
    elif expected := re.match(r"(Expect(?:ed|ing) .+?)(?: but got .*)?$", description, re.DOTALL):
        what = f"{expected[1].lower()} after {mark}"
    else:
        what = f"unexpected {mark}" if mark else "the query cannot be read"
    return SqlError(what, do="the query is read in Spark's dialect", offset=offset, length=len(mark))


def _offset(sql: str, line: int, column: int, mark: str) -> int:
    lines = sql.split("\n")
    end = sum(len(text) + 1 for text in lines[: line - 1]) + column
    return min(max(0, end - len(mark)), max(0, len(sql) - 1))


def _wrong_call(description: str, tokens: Sequence[Token], at: int) -> SqlError | None:
    """Return the error of a function with too few or too many arguments, at its name."""
    missing, too_many = _MISSING.search(description), _TOO_MANY.search(description)
    kind = getattr(exp, missing[2], None) if missing else None
    called = isinstance(kind, type) and issubclass(kind, _CALLS) and not issubclass(kind, exp.Connector)
    name = _name_before_brackets(tokens, at) if called or too_many else None
    if name is None:
        return None
    what = f"{name.text} lacks an argument"
    if too_many:
        given, most = too_many.groups()
        what = f"{name.text} takes at most {most} argument{'s' * (most != '1')}, not {given}"
    return SqlError(what, offset=name.start, length=len(name.text))


def _name_before_brackets(tokens: Sequence[Token], end: int) -> Token | None:
    """Return the function that a closing bracket belongs to."""
    depth = 0
    for k in range(end, 0, -1):
        kind = tokens[k].token_type
        depth += (kind == TokenType.R_PAREN) - (kind == TokenType.L_PAREN)
        if depth <= 0:
            named = kind == TokenType.L_PAREN and tokens[k - 1].text.isidentifier()
            return tokens[k - 1] if named else None
    return None


def _misspelt(tokens: Sequence[Token]) -> SqlError | None:
    """Return the error of a word that was read as a name, and is nearly one that begins a clause."""
    for token in tokens:
        near = difflib.get_close_matches(token.text.lower(), _CLAUSES, n=1, cutoff=0.7)
        if token.token_type == TokenType.VAR and near:
            return SqlError(
                f"unexpected {token.text}", do=f"did you mean {near[0]}?", offset=token.start, length=len(token.text)
            )
    return None
