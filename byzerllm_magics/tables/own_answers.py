"""A `select` may use the answers that it makes, by their names: ``select chat(…) as a, llm_result(a) as text``."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlglot import exp

    from .table import Table

Calls = Callable[["exp.Expr"], Collection["exp.Expr"]]


def use_own_answers(query: exp.Expr, tables: Callable[[str], Table], calls: Calls) -> None:
    """Write calls of models in the places of the names that the same `select` gave them before.

    As in Spark, a column of what the `select` reads wins over such a name.

    Args:
        query: It is changed.
        tables: Returns a table by name.
        calls: Returns the calls of models inside an expression.

    Raises:
        ByzerError: a table is unknown.
    """
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

    if not calls(query):
        return
    columns: dict[int, set[str]] = {}
    for scope in traverse_scope(query):  # each behind those that it reads from
        read = set[str]().union(*(_columns(source, tables, columns) for source in scope.sources.values()))
        select = scope.expression
        if isinstance(select, exp.Select):
            _use(select, read, calls)
        columns[id(scope)] = _made(select, read)


def _columns(source: Any, tables: Callable[[str], Table], columns: dict[int, set[str]]) -> set[str]:
    """Return the names, in lower case, of a source's columns."""
    from sqlglot import exp

    if not isinstance(source, exp.Table):
        return columns.get(id(source), set())
    if not isinstance(source.this, exp.Identifier):  # a function that makes rows
        return set(map(str.lower, source.alias_column_names))
    return {name.lower() for name in tables(".".join(part.name for part in source.parts)).column_names}


def _made(query: exp.Expr, read: set[str]) -> set[str]:
    """Return the names of the columns that a query makes of those that it reads."""
    from sqlglot import exp

    if not isinstance(query, exp.Query):  # rows beside others, as `lateral view` makes them
        return set(map(str.lower, getattr(query, "alias_column_names", ())))
    selects = query.selects
    made = {projection.alias_or_name.lower() for projection in selects}
    return made | read if any(projection.is_star for projection in selects) else made


def _use(select: exp.Select, read: set[str], calls: Calls) -> None:
    from sqlglot import exp

    from .sql_templates import enclosed

    made: dict[str, exp.Expr] = {}
    for projection in list(select.expressions):
        for column in list(projection.find_all(exp.Column)):
            name = column.name.lower()
            own = not column.table and name in made and name not in read
            if not own or column.find_ancestor(exp.Select) is not select or _asks_for_error(column):
                continue
            answer = enclosed(made[name].copy())
            if column is projection:
                answer = exp.alias_(answer, column.name, quoted=True)
            column.replace(answer)
        if projection.alias and calls(projection):
            made[projection.alias.lower()] = projection.this


def _asks_for_error(column: exp.Expr) -> bool:
    from .llm_functions import is_call_of

    return is_call_of(column.parent, "llm_error")
