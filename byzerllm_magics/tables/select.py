"""``select … as t``: a query in Spark's dialect, read by sqlglot and run by DuckDB."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .table import Table

if TYPE_CHECKING:
    from sqlglot import exp


def _ignored(_text: str, _offset: int) -> None: ...


def parse_query(
    sql: str,
    text_of: Callable[[str], str | None],
    *,
    names: Iterable[str] = (),
    note: Callable[[str, int], None] = _ignored,
) -> exp.Query:
    """Return a query as sqlglot's expression, in Spark's meaning; nothing is run.

    ``${name}`` is replaced inside string literals, once: what comes in stays one literal. Identifiers and functions
    keep their place in the text as ``meta["start"]`` and ``meta["end"]`` (inclusive).

    Args:
        sql: One select, with or union, without the trailing ``as NAME``; a semicolon may end it.
        text_of: The text of a name inside ``${…}``; None: undefined.
        names: Defined names, for the suggestion.
        note: Told what is tolerated, and its offset: a full-width comma, a comma before a bracket.

    Raises:
        SqlError: it is not one query, reads anything but named tables, or a name is undefined; ``offset`` says where.
    """
    from .parsing import parsed

    return parsed(sql, text_of, names, note)


def run_query(query: exp.Query, tables: Callable[[str], Table]) -> Table:
    """Run a query over named tables and return its rows as a table of one partition.

    Types are what Spark's users expect where Arrow can: sums of integers are int64, numbers with a point are doubles,
    texts are ``large_string`` (no limit of 2 GiB). Columns of one name are told apart: ``a``, ``a_1``.

    Args:
        query: From `parse_query`, perhaps changed since; it stays as it is.
        tables: The table of a name (``t``, ``db.t``); it may raise ByzerError, which then gets the name's offset.

    Raises:
        SqlError: an unknown table, column or function (the nearest name), types that do not go together, or whatever
            fails while it runs.
        KeyboardInterrupt: the kernel was interrupted; DuckDB has stopped.
    """
    from .running import run

    return run(query, tables)
