"""From a query's text to sqlglot's expression, and what a query may not hold."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from sqlglot import ParseError, exp
from sqlglot.errors import SqlglotError
from sqlglot.tokens import Token, TokenType

from byzerllm_adapters.errors import ByzerError

from .lexing import Note, tokens_of
from .spark import SPARK
from .spark_functions import GENERATORS
from .sql_error import SqlError
from .syntax_errors import syntax_error

_QUERY = "a query begins with select, with or from"
_FILE_FORMATS = ("text", "json", "csv", "parquet", "orc", "delta", "binaryfile")
_WORD = re.compile(r"[\w ]*")
_TIME_UNITS = (
    "year", "quarter", "month", "week", "day", "hour", "minute", "second", "millisecond", "microsecond",
)  # fmt: skip
_CHANGES = (exp.DDL, exp.DML, exp.Command, exp.Into, exp.QueryTransform, exp.Set, exp.Pragma, exp.Attach, exp.Copy)


def parsed(sql: str, text_of: Callable[[str], str | None], names: Iterable[str], note: Note) -> exp.Query:
    """See `select.parse_query`."""
    tokens = _one_statement(tokens_of(sql, text_of, names, note))
    try:
        [query] = SPARK.parser().parse(tokens, sql)
    except ParseError as error:
        raise syntax_error(sql, tokens, error) from None
    except (SqlglotError, LookupError, AttributeError, TypeError, ValueError, RecursionError) as error:
        # what sqlglot's own code raises of broken queries
        raise SqlError("the query cannot be read", where=" ".join(str(error).split())[:120]) from None
    if isinstance(query, exp.Values):
        query = exp.select("*").from_(query)
    if not isinstance(query, exp.Query):
        raise SqlError(f"{tokens[0].text} … is not a query", do=_QUERY, **_token_place(tokens[0]))
    for node in query.walk():
        _refuse(node)
        _refuse_amounts(node, sql)
    return query


def _one_statement(tokens: list[Token]) -> list[Token]:
    """Return the tokens of the only statement; what does not begin as a query is not even parsed."""
    while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
        tokens = tokens[:-1]
    if not tokens:
        raise SqlError("there is no query", do=_QUERY)
    for token, following in pairwise(tokens):
        if token.token_type == TokenType.SEMICOLON:
            raise SqlError("one query is expected, and another statement follows", **_token_place(following))
    if tokens[0].text.lower() not in ("select", "with", "from", "values", "("):
        raise SqlError(f"{tokens[0].text} … is not a query", do=_QUERY, **_token_place(tokens[0]))
    return tokens


def _token_place(token: Token) -> dict[str, Any]:
    return {"offset": token.start, "length": token.end - token.start + 1}


def place(node: exp.Expression | None) -> dict[str, Any]:
    """Return offset and length of a node in the query's text, as an error takes them."""
    for each in node.walk(bfs=False) if node else ():
        if "start" in each.meta:
            return {"offset": each.meta["start"], "length": each.meta["end"] - each.meta["start"] + 1}
    return {}


def placed(error: ByzerError, node: exp.Expression) -> SqlError:
    """Return an error at a node's place, unless it has one."""
    if isinstance(error, SqlError) and error.offset is not None:
        return error
    return SqlError(error.what, where=error.where, do=error.do, **place(node))


def function_name(node: exp.Expression) -> str:
    """Return the name that a function was written by, in lower case."""
    if isinstance(node, exp.Anonymous):
        return str(node.name).lower()
    return type(node).sql_names()[0].lower() if isinstance(node, exp.Func) else ""


def _refuse(node: exp.Expression) -> None:
    """Raise if a part of a query would change something, or read anything but the tables it names."""
    if isinstance(node, _CHANGES):
        word = node.key.upper()
        raise SqlError(f"a query cannot hold {word}", do="it reads tables, and makes one", **place(node))
    if isinstance(node, exp.Anonymous) and node.name.lower() == "map":
        form = 'map("instruction", question, "temperature", 0)'
        raise SqlError("map(…) has a key without a value", do=f"write {form}", **place(node))
    source = node.this if isinstance(node, exp.Table | exp.Lateral) else None
    if isinstance(source, exp.Func) and function_name(source) not in GENERATORS:
        raise SqlError(
            f"{function_name(source)} cannot stand for a table",
            do="a query reads named tables: load csv.`path` as t; makes one of files",
            **place(source),
        )
    if isinstance(node, exp.Table) and node.db.lower() in _FILE_FORMATS and "/" in node.name:
        raise SqlError(
            f"a query reads named tables, not files: {node.db}.`{node.name}`",
            do=f"load {node.db}.`{node.name}` as t; makes a table of them",
            **place(node),
        )
    unit = node.args.get("unit")
    if isinstance(node, exp.Var) or isinstance(unit, exp.Literal):
        text = node.name if isinstance(node, exp.Var) else unit.name
        if not _WORD.fullmatch(text):  # it will stand in the query as it is, not as a string
            raise SqlError(f"{text[:30]!r} is not a unit", do="write e.g. 'day' or 'month'", **place(node.parent))


def _refuse_amounts(node: exp.Expression, sql: str) -> None:
    """Raise if a `limit` is no number, or an interval has a unit that there is not."""
    if isinstance(node, exp.Limit | exp.Offset) and node.expression and (named := node.expression.find(exp.Column)):
        raise SqlError(f"{node.key} takes a number, not {named.name}", do=f"write {node.key} 10", **place(named))
    unit = node.args.get("unit") if isinstance(node, exp.Interval) else None
    if not isinstance(unit, exp.Var) or unit.name.lower().removesuffix("s") in _TIME_UNITS:
        return
    near = difflib.get_close_matches(unit.name.lower(), _TIME_UNITS, n=1)
    written = re.search(rf"\b{re.escape(unit.name)}\b", sql, re.IGNORECASE)  # sqlglot does not keep its place
    raise SqlError(
        f"an interval has no unit {unit.name.lower()!r}",
        do=f'did you mean "{near[0]}"?' if near else f"units: {', '.join(_TIME_UNITS)}",
        offset=written.start() if written else None,
        length=len(unit.name),
    )
