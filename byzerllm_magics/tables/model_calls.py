"""Calls of deployed models inside a query: ``select chat(llm_param(map(…))) as answer from questions``.

A model is not a function inside DuckDB, which may evaluate one several times, and row by row. A `select` that
calls models is run in stages instead: DuckDB evaluates everything that holds no call (`from`, `where`, `limit`
and what the requests are made of) once; the requests of all rows are dispatched together; the responses join
the stage as columns; calls that need a response follow the same way, until what was selected is complete. So
each call is made exactly once a row, whatever the plan, and the order of the rows is kept. Two calls that are
written alike in one `select` are one call.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .llm_functions import is_llm_function, rewrite
from .requests import for_replica, read_request, write_response
from .table import HIDDEN_PREFIX, Table

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlglot import exp

Ask = Callable[[str, Sequence[Mapping[str, Any]]], list[dict[str, Any]]]
"""Asks a model many requests; returns for each ``{"text", "extra"}`` or ``{"error": why}``, in their order."""

Lookup = Callable[[str], Table]
Run = Callable[[Any, Lookup], Table]
"""Runs a query without model calls over the tables that a function returns by name."""

STAGE = "__stage"


@dataclass
class Models:
    """What a query may call, and what became of the calls.

    Attributes:
        names: The deployed models.
        ask: Asks one of them.
        calls: How many calls were made.
        failures: Each distinct error, and how many calls failed with it.
        ignored: Keywords that a model had no use for.
    """

    names: Collection[str]
    ask: Ask
    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    ignored: set[str] = field(default_factory=set)

    def called_by(self, node: exp.Expr) -> str | None:
        """Return the model that this very node calls, or None.

        Raises:
            ByzerError: it calls something with a request, and no model of that name is deployed.
        """
        from sqlglot import exp

        if not isinstance(node, exp.Anonymous) or is_llm_function(node.name):
            return None
        name = next((m for m in self.names if m == node.name), None)
        name = name or next((m for m in self.names if m.lower() == node.name.lower()), None)
        if name is None and any(isinstance(a, exp.Anonymous) and is_llm_function(a.name) for a in node.expressions):
            near = difflib.get_close_matches(node.name, self.names, n=1)
            raise ByzerError(
                f"no model {node.name!r}",
                where=f"deployed: {', '.join(sorted(self.names)) or 'none'}",
                do=f"did you mean {near[0]}?" if near else '%%byzerllm run with action="infer" deploys one',
            )
        return name

    def calls_in(self, node: exp.Expr) -> list[exp.Expr]:
        """Return the calls inside a node, itself included, the outermost first."""
        from sqlglot import exp

        return [found for found in node.find_all(exp.Anonymous) if self.called_by(found)]


def run_with_models(query: exp.Expr, tables: Lookup, models: Models, run: Run) -> Table:
    """Run a query whose `select` lists may call models.

    Args:
        query: As parsed; it is not changed.
        tables: Returns a table by name.
        models: The models; counts what was called and what failed.
        run: Runs what holds no call.

    Raises:
        ByzerError: a call stands where it cannot (`where`, `group by`, …), a request is wrong, or a call with
            ``on_error="fail"`` failed.
    """
    query, made = query.copy(), dict[str, Table]()

    def lookup(name: str) -> Table:
        return made[name] if name in made else tables(name)

    for select in _selects(query):
        if not any(_belongs_to(call, select) for call in models.calls_in(select)):
            continue
        table = _Staging(select, lookup, models, run).table()
        if select is query:
            return table
        name = f"__called_{len(made)}"
        made[name] = table
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
        child, parent = parent, parent.parent
    if parent is not select:
        return False
    if child.arg_key != "expressions":
        raise _misplaced(call, f"in `{child.arg_key}`")
    if parent.args.get("distinct"):
        raise _misplaced(call, "in a `select distinct`")
    return True


def _misplaced(call: exp.Expr, place: str) -> ByzerError:
    return ByzerError(
        f"the model {call.name!r} is called {place}",
        do=f"call it in a select of its own: select …, {call.name}(…) as answer from … as answers;",
    )


def _replace_by_all_of(select: exp.Expr, name: str) -> None:
    from sqlglot import exp

    select.replace(exp.select("*").from_(exp.to_table(name)))


class _Staging:
    """One `select` that calls models, run in stages; see this module."""

    def __init__(self, select: exp.Expr, tables: Lookup, models: Models, run: Run) -> None:
        self._select, self._tables, self._models, self._run = select, tables, models, run
        self._pieces: list[exp.Expr] = []
        self._responses = 0

    def table(self) -> Table:
        """Return the result: the selected columns in order, and a hidden column of errors beside each of answers."""
        import pyarrow as pa

        selected = list(self._select.expressions)
        calling = {i: self._without_pieces(p) for i, p in enumerate(selected) if self._models.calls_in(p)}
        plain, stage = self._first(selected, calling)
        while calls := self._innermost(calling.values()):
            stage, columns = self._answered(stage, calls)
            for index, expression in calling.items():
                calling[index] = _with_columns(expression, columns)
        last = self._last(stage, selected, calling)
        columns_ = [pair for i in range(len(selected)) for pair in ([last[i]] if i in last else plain[i])]
        columns_ += [(HIDDEN_PREFIX + last[i][0], errors) for i, errors in self._errors(stage, calling).items()]
        return Table(pa.table([column for _, column in columns_], names=[name for name, _ in columns_]))

    def _without_pieces(self, projection: exp.Expr) -> exp.Expr:
        """Return what is selected with its largest parts that hold no call as columns of the first stage."""
        from sqlglot import exp

        def without(node: exp.Expr) -> exp.Expr:
            if isinstance(node, exp.Literal | exp.Null | exp.Boolean | exp.DataType | exp.Identifier):
                return node
            if not self._models.calls_in(node):
                if node not in self._pieces:
                    self._pieces.append(node.copy())
                return exp.column(f"__c{self._pieces.index(node)}")
            for child in list(node.iter_expressions()):
                child.replace(without(child))
            return node

        return without(projection.unalias().copy())

    def _first(
        self, selected: list[exp.Expr], calling: Mapping[int, exp.Expr]
    ) -> tuple[dict[int, list[tuple[str, pa.ChunkedArray]]], pa.Table]:
        """Run what holds no call; return the columns that are selected as they are, and those of the first stage.

        A mark before each tells which columns a star stood for.
        """
        from sqlglot import exp

        first = self._select.copy()
        _see_outer_names(first, self._select)
        marked = [
            part
            for i, projection in enumerate(selected)
            if i not in calling
            for part in (exp.alias_(exp.Literal.number(i), f"__at{i}"), projection.copy())
        ]
        end = exp.alias_(exp.Literal.number(0), "__end")
        pieces = [exp.alias_(piece.copy(), f"__c{i}") for i, piece in enumerate(self._pieces)]
        first.set("expressions", [*marked, end, *pieces])
        found = self._run(rewrite(first), self._tables).arrow()
        plain: dict[int, list[tuple[str, pa.ChunkedArray]]] = {}
        index = -1
        for name, column in zip(found.column_names, found.columns, strict=True):
            if name.startswith("__at"):
                index = int(name.removeprefix("__at"))
                plain[index] = []
            elif name == "__end":
                break
            else:
                plain[index].append((name, column))
        return plain, found.select(range(found.column_names.index("__end"), found.num_columns))

    def _innermost(self, expressions: Collection[exp.Expr]) -> list[exp.Expr]:
        """Return the distinct calls that hold no other."""
        calls = [call for expression in expressions for call in self._models.calls_in(expression)]
        return list({call.sql(): call for call in calls if len(self._models.calls_in(call)) == 1}.values())

    def _answered(self, stage: pa.Table, calls: list[exp.Expr]) -> tuple[pa.Table, dict[str, str]]:
        """Make calls for all rows; return the stage with their responses and errors, and each call's new column."""
        from sqlglot import exp

        for call in calls:
            if len(call.expressions) != 1:
                raise ByzerError(
                    f"the model {call.name!r} takes one request, not {len(call.expressions)} arguments",
                    do=f'write {call.name}(llm_param(map("instruction", question)))',
                )
        requests = [exp.alias_(call.expressions[0].copy(), f"__q{i}") for i, call in enumerate(calls)]
        texts = self._over(stage, requests)
        columns = {}
        for call, text in zip(calls, texts.columns, strict=True):
            model = self._models.called_by(call)
            assert model is not None, "it was found as a call of a model"
            columns[call.sql()] = name = f"__r{self._responses}"
            self._responses += 1
            responses, errors = _ask(self._models, model, text.to_pylist(), _errors_of(stage, call).to_pylist())
            stage = stage.append_column(name, [_texts(responses)])
            stage = stage.append_column(HIDDEN_PREFIX + name, [_texts(errors)])
        return stage, columns

    def _last(
        self, stage: pa.Table, selected: list[exp.Expr], calling: Mapping[int, exp.Expr]
    ) -> dict[int, tuple[str, pa.ChunkedArray]]:
        """Return name and values of each column that calls models."""
        from sqlglot import exp

        found = self._over(stage, [exp.alias_(e.copy(), f"__o{i}") for i, e in calling.items()])
        names = [selected[i].alias or self._models.calls_in(selected[i])[-1].name for i in calling]
        return dict(zip(calling, zip(names, found.columns, strict=True), strict=True))

    def _errors(self, stage: pa.Table, calling: Mapping[int, exp.Expr]) -> dict[int, pa.ChunkedArray]:
        """Return for each column that calls models why its rows have no answer."""
        return {i: _errors_of(stage, expression) for i, expression in calling.items()}

    def _over(self, stage: pa.Table, expressions: Sequence[exp.Expr]) -> pa.Table:
        """Evaluate expressions over a stage, row by row."""
        from sqlglot import exp

        query = exp.select(*expressions).from_(exp.to_table(STAGE))
        return self._run(rewrite(query), lambda _: Table(stage)).arrow()


def _with_columns(expression: exp.Expr, columns: Mapping[str, str]) -> exp.Expr:
    """Return an expression with columns in place of calls."""
    from sqlglot import exp

    def one(node: exp.Expr) -> exp.Expr:
        name = columns.get(node.sql()) if isinstance(node, exp.Anonymous) else None
        return exp.column(name) if name else node

    return expression.transform(one)


def _see_outer_names(first: exp.Expr, select: exp.Expr) -> None:
    """Let a `select` that is run by itself see what the `with`s around it have named before it."""
    ancestor, below = select.parent, select
    while ancestor is not None:
        with_ = next((v for k, v in ancestor.args.items() if k in ("with", "with_") and v is not None), None)
        if with_ is not None:
            named = with_.expressions
            own = next((i for i, cte in enumerate(named) if cte is below or below in cte.walk()), len(named))
            for cte in named[:own]:
                first.with_(cte.alias, as_=cte.this.copy(), copy=False)
        ancestor, below = ancestor.parent, ancestor


def _errors_of(stage: pa.Table, expression: exp.Expr) -> pa.ChunkedArray:
    """Return why the responses that an expression uses are missing, row by row."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from sqlglot import exp

    used = [HIDDEN_PREFIX + c.name for c in expression.find_all(exp.Column) if c.name.startswith("__r")]
    return pc.coalesce(pa.chunked_array([pa.nulls(len(stage), pa.string())]), *[stage.column(name) for name in used])


def _ask(
    models: Models, model: str, texts: list[str | None], reasons: list[str | None]
) -> tuple[list[str | None], list[str | None]]:
    """Ask a model for all rows at once; return responses and errors. A row without a request is not asked.

    Args:
        models: Asks, and counts.
        model: Who is asked.
        texts: The requests as JSON.
        reasons: Why there is no request, where another call's failure is the reason.
    """
    requests = {row: read_request(text) for row, text in enumerate(texts) if text is not None}
    answers = models.ask(model, [for_replica(request) for request in requests.values()]) if requests else []
    responses: list[str | None] = [None] * len(texts)
    errors: list[str | None] = [
        None if text is not None else reason or "the request is NULL"
        for text, reason in zip(texts, reasons, strict=True)
    ]
    models.calls += len(requests)
    for (row, request), answer in zip(requests.items(), answers, strict=True):
        if "error" not in answer:
            responses[row] = write_response(request, answer)
            models.ignored.update(answer["extra"].get("ignored", ()))
            continue
        errors[row] = why = str(answer["error"])
        models.failures[why] += 1
        if request.get("on_error") == "fail":
            raise ByzerError(
                f"{model} failed on row {row}: {why.splitlines()[0]}", do='without on_error="fail" it is NULL'
            )
    return responses, errors


def _texts(values: list[str | None]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())
