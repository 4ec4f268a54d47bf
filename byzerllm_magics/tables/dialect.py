"""A query in Spark's dialect as DuckDB's: what sqlglot does not translate, clause by clause."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from sqlglot import ErrorLevel, UnsupportedError, exp
from sqlglot.errors import SqlglotError

from .parsing import place, placed
from .spark import SPARK
from .spark_operators import Types, rewritten
from .spark_rows import is_generator, make_rows
from .sql_error import SqlError

_UNTRANSLATABLE = (SqlglotError, LookupError, AttributeError, TypeError, ValueError)
"""What sqlglot raises of what it cannot write: the others come of its own code, of calls that lack an argument."""


def to_duckdb(query: exp.Query, types: Types) -> exp.Query:
    """Return a query that means in DuckDB what this one means in Spark 3 (without ANSI mode); it may be changed.

    What differs on purpose: a number with a point is a double (Spark: a decimal), rand(seed) gives other numbers.

    Args:
        query: Its tables have names and aliases already.
        types: Columns of the tables by name, in lower case, where the name says which one is meant.

    Raises:
        SqlError: something has no counterpart.
    """
    for select in list(query.find_all(exp.Select)):
        with _read_as_called(select):
            name_columns(select)
        _sort(select)
        _group(select)
    for values in list(query.find_all(exp.Values)):
        _name_values(values)
    make_rows(query, types)
    return _rewritten(query, types)


def as_written(query: exp.Query) -> str:
    """Return a translated query's text.

    Raises:
        SqlError: a part has no counterpart, with its place.
    """
    with _read_as_called(query):
        return str(query.sql(dialect="duckdb", unsupported_level=ErrorLevel.RAISE, comments=False))


def seed_of(query: exp.Query) -> float | None:
    """Return what DuckDB's random numbers begin with, from -1 to 1, where a query says rand(seed)."""
    seeds = [node.this.sql() for node in query.find_all(exp.Rand) if node.this]
    return zlib.crc32(" ".join(seeds).encode()) / 2**31 - 1 if seeds else None


@contextmanager
def _read_as_called(node: exp.Expression) -> Iterator[None]:
    """Turn what sqlglot raises of a part into an error at the function that it is."""
    try:
        yield
    except SqlError as error:
        raise placed(placed(error, node), node.parent or node) from None  # what sqlglot adds has no place of its own
    except _UNTRANSLATABLE as error:
        functions = reversed(list(node.find_all(exp.Func)))  # the innermost first
        guilty = next((function for function in functions if not _can_be_written(function)), node)
        where = " ".join(str(error).split()) if isinstance(error, UnsupportedError) else ""
        do = "see which arguments it takes in Spark"
        raise SqlError("this call cannot be translated", where=where, do=do, **place(guilty)) from None


def _can_be_written(node: exp.Expression) -> bool:
    try:
        node.sql(dialect="duckdb", unsupported_level=ErrorLevel.RAISE)
    except _UNTRANSLATABLE:
        return False
    return True


def _rewritten(query: exp.Query, types: Types) -> exp.Query:
    """Rewrite functions and operators, the innermost first."""
    for node in reversed(list(query.walk())):
        parent, key, index = node.parent, node.arg_key, node.index
        with _read_as_called(node):
            new = rewritten(node, types)
        if new is not node and parent is not None and key is not None:
            parent.set(key, new, index=index)
    return query


def name_columns(select: exp.Select) -> None:
    """Name what has no name as Spark does: by its text."""
    for projection in select.expressions:
        named = isinstance(projection, exp.Alias | exp.Aliases | exp.Column | exp.Star | exp.Dot)
        if not named and not is_generator(projection):
            name = spark_name(projection)
            projection.replace(exp.alias_(projection.copy(), name, quoted=True))


def spark_name(projection: exp.Expression) -> str:
    """Return what Spark calls a column that was given no name."""
    if isinstance(projection, exp.Literal):
        return str(projection.this)
    if isinstance(projection, exp.Count) and isinstance(projection.this, exp.Star):
        return "count(1)"
    text = projection.sql(
        dialect=SPARK, normalize_functions="lower", comments=False, unsupported_level=ErrorLevel.IGNORE
    )
    return f"({text})" if isinstance(projection, exp.Binary) and not isinstance(projection, exp.Paren) else text


def _sort(select: exp.Select) -> None:
    """Order by what is sorted by, as there is one partition; refuse what only moves rows between partitions."""
    for clause in ("distribute", "cluster"):
        if select.args.get(clause):
            raise SqlError(
                f"{clause} by has no effect on one table",
                do="run t as TableRepartition.`` where partitionCols=… makes partitions",
                **place(select.args[clause]),
            )
    if sort := select.args.get("sort"):
        select.set("sort", None)
        if not select.args.get("order"):
            select.set("order", exp.Order(expressions=sort.expressions))


def _group(select: exp.Select) -> None:
    """Write ``group by a with rollup`` as ``group by rollup(a)``, and cube alike."""
    group = select.args.get("group")
    for kind in ("rollup", "cube") if group else ():
        for clause in group.args.get(kind) or []:
            if not clause.expressions:
                clause.set("expressions", group.expressions)
                group.set("expressions", [])


def _name_values(values: exp.Values) -> None:
    """Give the columns of values Spark's names: col1, col2, …"""
    alias = values.args.get("alias") or exp.TableAlias(this=exp.to_identifier("byzer_values"))
    if not alias.columns and values.expressions and isinstance(values.parent, exp.From | exp.Join | exp.Subquery):
        width = len(values.expressions[0].expressions)
        alias.set("columns", [exp.to_identifier(f"col{k}") for k in range(1, width + 1)])
        values.set("alias", alias)
