"""A query in Spark's meaning, run by DuckDB over the tables that it names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING

from sqlglot import exp

from byzerllm_adapters.errors import ByzerError

from .dialect import as_written, name_columns, seed_of, to_duckdb
from .duckdb_errors import explained
from .engine import connection, interruptible
from .parsing import placed
from .sql_error import SqlError
from .table import Table

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

_HUGE = re.compile(r"\bU?HUGEINT\b")
"""What DuckDB sums integers to; Arrow would make decimals of it, Spark's sums are BIGINT."""


def run(query: exp.Query, tables: Callable[[str], Table]) -> Table:
    """See `select.run_query`."""
    import duckdb

    bound = query.copy()
    sources = _bound(bound, tables)
    try:
        return _run(bound, sources)
    except (duckdb.BinderException, duckdb.ConversionException) as error:
        from .coercion import coerced

        bound = query.copy()  # what has run was translated in place
        sources = _bound(bound, tables)
        for select in bound.find_all(exp.Select):  # before casts that nobody wrote are part of a name
            name_columns(select)
        if not coerced(bound, sources):
            raise explained(error, query, sources) from None
    except duckdb.Error as error:
        raise explained(error, query, sources) from None
    try:  # once more, with the casts that Spark makes by itself
        return _run(bound, sources)
    except duckdb.Error as error:
        raise explained(error, query, sources) from None


def _run(bound: exp.Query, sources: Mapping[str, Table]) -> Table:
    """Translate a query, which is changed, and run it."""
    seed = seed_of(bound)
    sql = as_written(to_duckdb(bound, _types(bound, sources.values())))
    scans = {name: table.scannable() for name, table in sources.items()}
    with connection(scans, threads=None if seed is None else 1) as duck:
        if seed is not None:
            duck.execute("select setseed($1)", [seed]).fetchall()
        return Table(interruptible(duck, lambda: _rows(duck, sql)))


def _bound(query: exp.Query, tables: Callable[[str], Table]) -> dict[str, Table]:
    """Give each table of a query a name of our own, so that nothing else is found by any name; return them by it."""
    for hint in list(query.find_all(exp.Hint)):
        hint.pop()
    names: dict[str, str] = {}
    sources: dict[str, Table] = {}
    for node in list(query.find_all(exp.Table)):
        if not isinstance(node.this, exp.Identifier) or is_of_with(node):
            continue
        written = ".".join(part.name for part in node.parts)
        if written not in names:
            names[written] = f"__byzer_table_{len(names)}"
            sources[names[written]] = _looked_up(written, node, tables)
        if not node.alias:
            node.set("alias", exp.TableAlias(this=exp.to_identifier(node.name, quoted=True)))
        node.set("this", exp.to_identifier(names[written], quoted=True))
        node.set("db", None)
        node.set("catalog", None)
    dotted = {name.lower() for name in names if "." in name}
    for column in query.find_all(exp.Column):  # db.t.a: the table has an alias now
        if ".".join(part.name for part in column.parts[:-1]).lower() in dotted:
            column.set("db", None)
            column.set("catalog", None)
    return sources


def _types(query: exp.Query, tables: Iterable[Table]) -> dict[str, pa.DataType]:
    """Return the types of columns whose name stands for one column only, wherever it is."""
    fields = [field for table in tables for field in table.schema]
    aliases = [alias.alias.lower() for alias in query.find_all(exp.Alias)]
    names = Counter([*(field.name.lower() for field in fields), *aliases])
    return {field.name.lower(): field.type for field in fields if names[field.name.lower()] == 1}


def _looked_up(name: str, node: exp.Table, tables: Callable[[str], Table]) -> Table:
    try:
        table = tables(name)
    except ByzerError as error:
        raise placed(error, node) from None
    if not table.column_names:
        what = f"the table {name} is empty: it has no columns"
        raise placed(SqlError(what, do="look at the file or the DataFrame that it is made of"), node)
    return table


def is_of_with(table: exp.Table) -> bool:
    """Whether a name stands for a query of a ``with`` there: below it for all of them, in one for those before it."""
    if table.db:
        return False
    node: exp.Expression = table
    own: exp.Expression | None = None
    while (outer := node.parent) is not None:
        own = node if isinstance(node, exp.CTE) else own
        if isinstance(outer, exp.Query):
            visible = list(outer.ctes)
            if isinstance(node, exp.With):
                visible = visible[: visible.index(own) + bool(node.args.get("recursive"))]
            if any(cte.alias.lower() == table.name.lower() for cte in visible):
                return True
        node = outer
    return False


def _rows(duck: DuckDBPyConnection, sql: str) -> pa.Table:
    """Run the query once; give its columns names that differ, and types that Arrow's readers know."""
    relation = duck.sql(sql)
    names = distinct(relation.columns)
    types = [str(kind) for kind in relation.types]
    plain = [_HUGE.sub("BIGINT", kind) for kind in types]
    if (names, plain) != (relation.columns, types):
        inner = [f"c{k}" for k in range(len(names))]
        columns = [
            (f"cast({c} as {new})" if new != old else c) + f" as {_quoted(name)}"
            for c, name, old, new in zip(inner, names, types, plain, strict=True)
        ]
        relation = duck.sql(f"select {', '.join(columns)} from ({sql}) as rows({', '.join(inner)})")
    return relation.to_arrow_table()


def distinct(names: Sequence[str]) -> list[str]:
    """Tell columns of one name apart, in any case: a, a_1, a_2."""
    taken: set[str] = set()
    result = []
    for name in names:
        numbered = (f"{name}_{k}" if k else name for k in count())
        new = next(each for each in numbered if each.lower() not in taken)
        taken.add(new.lower())
        result.append(new)
    return result


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
