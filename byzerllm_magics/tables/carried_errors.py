"""Why an answer is NULL goes where the answer goes: `select` that names columns takes the hidden errors along.

`select *` does so by itself. Where a `select` groups, aggregates, is part of a `union` or a value in another query, a
row of the result is not a row of answers any more: errors end there, and a star stands for visible columns alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from .llm_functions import name_answers
from .own_answers import use_own_answers
from .table import HIDDEN_PREFIX, Table

if TYPE_CHECKING:
    from sqlglot import exp

Calls = Callable[["exp.Expr"], Collection["exp.Expr"]]


def carry_errors(query: exp.Query, tables: Callable[[str], Table], calls: Calls) -> exp.Query:
    """Return a query whose results have the hidden errors of every column of answers that they are made of.

    Args:
        query: As parsed; it is not changed.
        tables: Returns a table by name.
        calls: Returns the calls of models inside an expression: their errors are found when they are made.

    Raises:
        ByzerError: a table is unknown.
    """
    from sqlglot.optimizer.scope import traverse_scope

    query = query.copy()
    name_answers(query, calls)
    use_own_answers(query, tables, calls)
    carried: dict[int, set[str]] = {}
    for scope in traverse_scope(query):  # each behind those that it reads from
        sources = {alias.lower(): _answers(source, tables, carried) for alias, source in scope.sources.items()}
        carried[id(scope)] = _carry(scope.expression, sources, calls)
    return query


def _answers(source: Any, tables: Callable[[str], Table], carried: dict[int, set[str]]) -> set[str]:
    """Return names, in lower case, of a source's columns that have errors beside them."""
    from sqlglot import exp

    if not isinstance(source, exp.Table):
        return carried.get(id(source), set())
    if not isinstance(source.this, exp.Identifier):  # a function that makes rows
        return set()
    return {name.lower() for name in tables(".".join(part.name for part in source.parts)).columns_with_errors}


def _carry(select: exp.Expr, sources: dict[str, set[str]], calls: Calls) -> set[str]:
    """Add to a `select` the hidden columns that its own columns need; return the names of columns that have some."""
    from sqlglot import exp

    from .dialect import spark_name

    if not isinstance(select, exp.Select):
        return set()
    if _summarises(select) or not makes_rows(select):
        _hide_errors(select, sources)
        return set()
    having: set[str] = set()
    for projection in list(select.expressions):
        if projection.is_star:
            of = getattr(projection, "table", "").lower()
            having |= sources.get(of, set()) if of else set().union(*sources.values())
        elif calls(projection):
            having.add(projection.alias_or_name.lower())
        elif projection.alias_or_name.lower() not in having and (errors := _errors_in(projection, sources)):
            name = projection.alias_or_name
            if not name:
                name = spark_name(projection)
                projection.replace(exp.alias_(projection.copy(), name, quoted=True))
            hidden = exp.to_identifier(HIDDEN_PREFIX + name, quoted=True)
            first, *others = errors
            error = exp.Coalesce(this=first, expressions=others) if others else first
            select.select(exp.alias_(error, hidden), copy=False)
            having.add(name.lower())
    return having


def _hide_errors(select: exp.Select, sources: dict[str, set[str]]) -> None:
    """Let the stars of a `select` stand for visible columns alone."""
    from sqlglot import exp

    for projection in select.expressions:
        if not projection.is_star:
            continue
        of = getattr(projection, "table", "").lower()
        hidden = sources.get(of, set()) if of else set().union(*sources.values())
        star = projection.this if isinstance(projection, exp.Column) else projection
        if hidden:
            left_out = [exp.to_identifier(HIDDEN_PREFIX + name, quoted=True) for name in sorted(hidden)]
            star.set("except_", [*(star.args.get("except_") or []), *left_out])


def makes_rows(select: exp.Expr) -> bool:
    """Whether the rows are the query's, or another `select` reads from them; not a value, nor part of a union."""
    from sqlglot import exp

    place = select.parent
    if isinstance(place, exp.Subquery):
        return place.parent is None or isinstance(place.parent, exp.From | exp.Join)
    return place is None or isinstance(place, exp.CTE)


def _summarises(select: exp.Select) -> bool:
    """Whether a row of the result stands for several rows."""
    from sqlglot import exp

    if select.args.get("distinct") or select.args.get("group"):
        return True
    found = (node for projection in select.expressions for node in projection.find_all(exp.AggFunc))
    return any(not isinstance(node.parent, exp.Window) for node in found)


def _errors_in(projection: exp.Expr, sources: dict[str, set[str]]) -> list[exp.Expr]:
    """Return the hidden columns of the answers that an expression is made of; asking for an error is none."""
    from sqlglot import exp

    found: dict[tuple[str, str], exp.Expr] = {}
    for column in projection.find_all(exp.Column):
        asked = column.find_ancestor(exp.Anonymous)
        of, name = column.table.lower(), column.name.lower()
        within = [sources.get(of, set())] if of else list(sources.values())
        if (asked is None or asked.name.lower() != "llm_error") and sum(name in known for known in within) == 1:
            found[of, name] = exp.column(HIDDEN_PREFIX + column.name, table=column.args.get("table"), quoted=True)
    return list(found.values())
