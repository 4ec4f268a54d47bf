"""Calls of deployed models inside a query: ``select chat(llm_param(map(…))) as answer from questions``.

A model is not a function inside DuckDB, which may evaluate one several times, and row by row. A `select` that
calls models is run in stages instead: DuckDB evaluates everything that holds no call (`from`, `where`, `limit`
and what the requests are made of) once; the requests of all rows are dispatched together; the responses join
the stage as columns; calls that need a response follow the same way, until what was selected is complete. So
each call is made exactly once a row, whatever the plan, and the order of the rows is kept. Two calls that are
written alike in one `select` are one call; a call in a branch of `case`, `if` or `coalesce` is made for the rows
that need it. Ordering by an answer, and a `limit` behind it, come last.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .carried_errors import makes_rows
from .llm_functions import is_call_of, is_llm_function, name_answers, rewrite
from .staging import Staging
from .table import Table
from .written_requests import REQUESTS, check_request

if TYPE_CHECKING:
    from sqlglot import exp

Ask = Callable[[str, Sequence[Mapping[str, Any]]], list[dict[str, Any]]]
"""Asks a model many requests; returns for each ``{"text", "extra"}`` or ``{"error": why}``, in their order."""

Lookup = Callable[[str], Table]
Run = Callable[[Any, Lookup], Table]
"""Runs a query without model calls over the tables that a function returns by name."""


@dataclass
class Models:
    """What a query may call, and what became of the calls.

    Attributes:
        names: The deployed models.
        ask: Asks one of them; None: nobody does, and every answer is NULL.
        calls: How many calls were wanted: one a row that needs one and has what the call is made of.
        failures: Each distinct error, and how many of these calls failed with it.
        ignored: Keywords that a model had no use for.
    """

    names: Collection[str]
    ask: Ask | None
    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    ignored: set[str] = field(default_factory=set)

    def called_by(self, node: exp.Expr) -> str | None:
        """Return the model that this very node calls, or None.

        Raises:
            ByzerError: it calls something with a request, and no model of that name is deployed.
        """
        from sqlglot import exp

        from .parsing import placed

        if not isinstance(node, exp.Anonymous) or is_llm_function(node.name):
            return None
        name = next((m for m in self.names if m == node.name), None)
        name = name or next((m for m in self.names if m.lower() == node.name.lower()), None)
        if name is None and any(is_call_of(a, request) for a in node.expressions for request in REQUESTS):
            near = difflib.get_close_matches(node.name, self.names, n=1)
            error = ByzerError(
                f"no model {node.name!r}",
                where=f"deployed: {', '.join(sorted(self.names)) or 'none'}",
                do=f"did you mean {near[0]}?" if near else '%%byzerllm run with action="infer" deploys one',
            )
            raise placed(error, node)
        return name

    def failed(self, call: exp.Expr, row: int, request: Mapping[str, Any], why: str) -> str:
        """Count a call that failed and return why it did.

        Raises:
            ByzerError: the request says ``on_error="fail"``.
        """
        self.failures[why] += 1
        if request.get("on_error") == "fail":
            from .parsing import placed

            what = f"{self.called_by(call)} failed on row {row}: {why.splitlines()[0]}"
            raise placed(ByzerError(what, do='without on_error="fail" it is NULL'), call)
        return why

    def calls_in(self, node: exp.Expr) -> list[exp.Expr]:
        """Return the calls inside a node, itself included, the outermost first."""
        from sqlglot import exp

        return [found for found in node.find_all(exp.Anonymous) if self.called_by(found)]


def run_with_models(query: exp.Expr, tables: Lookup, models: Models, run: Run) -> Table:
    """Run a query whose `select` lists may call models; it is run over no rows first, which shows plain mistakes.

    Args:
        query: As parsed; it is not changed.
        tables: Returns a table by name.
        models: The models; counts what was called and what failed.
        run: Runs what holds no call.

    Raises:
        ByzerError: a call stands where it cannot (`where`, `group by`, …), a request is wrong, or a call with
            ``on_error="fail"`` failed.
    """
    if models.ask is not None and models.calls_in(query):
        run_with_models(query, lambda name: tables(name).without_rows(), replace(models, ask=None), run)
    query, made = query.copy(), dict[str, Table]()
    name_answers(query, models.calls_in)

    def lookup(name: str) -> Table:
        return made[name] if name in made else tables(name)

    for select in _selects(query):
        calls = [call for call in models.calls_in(select) if _belongs_to(call, select)]
        if not calls:
            continue
        for call in calls:
            check_request(call)
        _ask_calls_for_errors(select, lookup, models)
        table = Staging(select, lookup, models, run).table()
        if select is query:
            return table
        name = f"__called_{len(made)}"
        made[name] = table if makes_rows(select) else table.without_errors()
        _replace_by_all_of(select, name)
    return run(rewrite(query), lookup)


def _selects(node: exp.Expr) -> Iterator[exp.Expr]:
    """Yield the `select`s of a query, each behind those that it may read from."""
    from sqlglot import exp

    children = list(node.iter_expressions())
    for child in sorted(children, key=lambda child: not isinstance(child, exp.With)):
        yield from _selects(child)
    if isinstance(node, exp.Select):
        yield node


def _belongs_to(call: exp.Expr, select: exp.Expr) -> bool:
    """Whether a call stands in a `select` itself, in the list of what is selected.

    Raises:
        ByzerError: it stands elsewhere in this `select`.
    """
    from sqlglot import exp

    child, parent = call, call.parent
    while parent is not None and not isinstance(parent, exp.Select):
        if isinstance(parent, exp.AggFunc | exp.Window):
            raise _misplaced(call, f"inside {parent.key}(…)")
        if isinstance(parent, exp.Lambda):
            raise _misplaced(call, "for the elements of an array")
        child, parent = parent, parent.parent
    if parent is not select:
        return False
    if child.arg_key != "expressions":
        raise _misplaced(call, f"in `{child.arg_key}`")
    if parent.args.get("distinct"):
        raise _misplaced(call, "in a `select distinct`")
    return True


def _misplaced(call: exp.Expr, place: str) -> ByzerError:
    from .parsing import placed

    error = ByzerError(
        f"the model {call.name!r} is called {place}",
        do=f"call it in a select of its own: select …, {call.name}(…) as answer from … as answers;",
    )
    return placed(error, call)


def _ask_calls_for_errors(select: exp.Expr, tables: Lookup, models: Models) -> None:
    """Let ``llm_error(answer)`` mean the answer that the same `select` makes, unless a table has one of that name."""
    from sqlglot import exp

    from .running import is_of_with

    made = {p.alias.lower(): calls[0] for p in select.expressions if p.alias and (calls := models.calls_in(p))}
    read = [source.this for source in select.find_all(exp.From, exp.Join) if isinstance(source.this, exp.Table)]
    for node in select.find_all(exp.Anonymous):
        asked = node.expressions[0] if is_call_of(node, "llm_error") and node.expressions else None
        if not isinstance(asked, exp.Column) or asked.table or asked.name.lower() not in made:
            continue
        names = {".".join(part.name for part in table.parts) for table in read if not is_of_with(table)}
        known = {name.lower() for table in names for name in tables(table).columns_with_errors}
        if asked.name.lower() not in known:
            asked.replace(made[asked.name.lower()].copy())


def _replace_by_all_of(select: exp.Expr, name: str) -> None:
    from sqlglot import exp

    select.replace(exp.select("*").from_(exp.to_table(name)))
