"""One `select` that calls models, run in stages; see `model_calls`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .branches import any_of, guards
from .llm_functions import is_call_of, rewrite
from .pieces import without_pieces
from .requests import answer_problem, for_replica, read_request, request_problem, write_response
from .table import HIDDEN_PREFIX, Table

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlglot import exp

    from .model_calls import Lookup, Models, Run

STAGE = "__stage"
Named = tuple[str, "pa.ChunkedArray"]


@dataclass(frozen=True)
class _Call:
    """A call that can be made: all that it needs has been answered.

    Attributes:
        node: The call.
        needed: A condition that holds in the rows that need it; None: all do.
        vector: Whether its answer has to be one, since nothing but `llm_embedding` reads it.
    """

    node: exp.Expr
    needed: exp.Expr | None
    vector: bool


class Staging:
    """One `select` that calls models.

    Args:
        select: It is not changed.
        tables: Returns a table by name.
        models: Who is asked; counts what was called and what failed.
        run: Runs what holds no call.
    """

    def __init__(self, select: exp.Expr, tables: Lookup, models: Models, run: Run) -> None:
        self._select, self._tables, self._models, self._run = select, tables, models, run
        self._selected: list[exp.Expr] = list(select.expressions)
        self._order = _order_by_answers(select, models)
        self._pieces: list[exp.Expr] = []
        self._responses = 0

    def table(self) -> Table:
        """Return the result: the selected columns in order, and a hidden column of errors beside each of answers."""
        import pyarrow as pa

        selected, models = self._selected, self._models
        calling = {i: p.unalias() for i, p in enumerate(selected) if models.calls_in(p)}
        calling |= {len(selected) + k: key.this for k, key in enumerate(self._order)}
        calling = {i: without_pieces(p, models.calls_in, self._pieces) for i, p in calling.items()}
        plain, stage = self._first(calling)
        while ready := self._ready(calling.values()):
            stage, columns = self._answered(stage, ready)
            calling = {i: _with_columns(expression, columns) for i, expression in calling.items()}
        found = dict(zip(calling, self._over(stage, list(calling.values())), strict=True))
        shown = [pair for i in range(len(selected)) for pair in plain.get(i) or [(_name(selected[i]), found[i])]]
        shown += [
            (HIDDEN_PREFIX + _name(selected[i]), _errors_of(stage, calling[i]))
            for i in calling
            if i in found and i < len(selected)
        ]
        table = pa.table([column for _, column in shown], names=_distinct([name for name, _ in shown]))
        keys = [found[len(selected) + k] for k in range(len(self._order))]
        return Table(self._in_order(table, keys) if keys else table)

    def _first(self, calling: Mapping[int, exp.Expr]) -> tuple[dict[int, list[Named]], pa.Table]:
        """Run what holds no call; return the columns that are selected as they are, and those of the first stage.

        A mark before each tells which columns a star stood for.
        """
        from sqlglot import exp

        first = self._select.copy()
        _see_outer_names(first, self._select)
        if self._order:  # the rows are put in order, and cut off, when there are answers
            for clause in ("order", "sort", "limit", "offset"):
                first.set(clause, None)
        marked = [
            part
            for i, projection in enumerate(self._selected)
            if i not in calling
            for part in (exp.alias_(exp.Literal.number(i), f"__at{i}"), projection.copy())
        ]
        end = exp.alias_(exp.Literal.number(0), "__end")
        pieces = [exp.alias_(piece.copy(), f"__c{i}") for i, piece in enumerate(self._pieces)]
        first.set("expressions", [*marked, end, *pieces])
        found = self._run(rewrite(first), self._tables).arrow()
        plain: dict[int, list[Named]] = {}
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

    def _ready(self, expressions: Collection[exp.Expr]) -> list[_Call]:
        """Return the calls that can be made now: none of them holds another, nor hangs on what one answers."""
        calls_in = self._models.calls_in
        written: dict[str, list[exp.Expr]] = {}
        for call in (call for expression in expressions for call in calls_in(expression)):
            if len(calls_in(call)) == 1:
                written.setdefault(call.sql(), []).append(call)
        needs = {text: [guards(call) for call in calls] for text, calls in written.items()}
        ready = [text for text, places in needs.items() if not all(places) or not _any(places, calls_in)]
        if not ready:  # each hangs on another: they are made for more rows than need them
            ready = list(needs)
            needs = {
                text: [[g for g in place if not calls_in(g)] for place in places] for text, places in needs.items()
            }
        return [
            _Call(
                node=written[text][0],
                needed=any_of(needs[text]) if all(needs[text]) else None,
                vector=all(is_call_of(call.parent, "llm_embedding") for call in written[text]),
            )
            for text in ready
        ]

    def _answered(self, stage: pa.Table, calls: Sequence[_Call]) -> tuple[pa.Table, dict[str, str]]:
        """Make calls where they are needed; return the stage with responses and errors, and each call's column."""
        requests = self._over(stage, [call.node.expressions[0] for call in calls])
        columns = {}
        for call, texts in zip(calls, requests, strict=True):
            needed = self._over(stage, [call.needed])[0].to_pylist() if call.needed else [True] * len(stage)
            columns[call.node.sql()] = name = f"__r{self._responses}"
            self._responses += 1
            reasons = _errors_of(stage, call.node).to_pylist()
            responses, errors = self._asked(call, texts.to_pylist(), needed, reasons)
            stage = stage.append_column(name, [_texts(responses)])
            stage = stage.append_column(HIDDEN_PREFIX + name, [_texts(errors)])
        return stage, columns

    def _asked(
        self, call: _Call, texts: list[str | None], needed: list[bool], reasons: list[str | None]
    ) -> tuple[list[str | None], list[str | None]]:
        """Ask a model for all rows at once; return responses and errors. A row without a request is not asked.

        Args:
            call: What is called.
            texts: The requests as JSON.
            needed: Which rows need an answer.
            reasons: Why there is no request, where another call's failure is the reason.
        """
        models, model = self._models, self._models.called_by(call.node)
        assert model is not None, "it was found as a call of a model"
        responses: list[str | None] = [None] * len(texts)
        errors: list[str | None] = [None] * len(texts)
        if models.ask is None:  # a rehearsal
            return responses, errors
        requests = {}
        for row, text in enumerate(texts):
            if not needed[row]:
                continue
            if text is None and reasons[row]:
                errors[row] = reasons[row]
                continue
            models.calls += 1
            request = {} if text is None else _read(text, call.node)
            problem = "the request is NULL" if text is None else request_problem(request, model)
            if problem:
                errors[row] = models.failed(call.node, row, request, problem)
            else:
                requests[row] = request
        answers = models.ask(model, [for_replica(request) for request in requests.values()]) if requests else []
        for (row, request), answer in zip(requests.items(), answers, strict=True):
            why = answer.get("error") or (answer_problem(answer["text"], model) if call.vector else None)
            if why:
                errors[row] = models.failed(call.node, row, request, str(why))
            else:
                responses[row] = write_response(request, answer)
                models.ignored.update(answer["extra"].get("ignored", ()))
        return responses, errors

    def _over(self, stage: pa.Table, expressions: Sequence[exp.Expr]) -> list[pa.ChunkedArray]:
        """Evaluate expressions over a stage, row by row."""
        from sqlglot import exp

        named = [exp.alias_(expression.copy(), f"__o{i}") for i, expression in enumerate(expressions)]
        query = exp.select(*named).from_(exp.to_table(STAGE))
        return list(self._run(rewrite(query), lambda _: Table(stage)).arrow().columns)

    def _in_order(self, table: pa.Table, keys: Sequence[pa.ChunkedArray]) -> pa.Table:
        """Return the rows in the order that is asked for, and as many of them."""
        import pyarrow as pa
        from sqlglot import exp

        names = [f"__k{k}" for k in range(len(keys))]
        stage = pa.table([pa.array(range(table.num_rows), pa.int64()), *keys], names=["__row", *names])
        query = exp.select("__row").from_(exp.to_table(STAGE))
        ordered = [key.copy() for key in self._order]
        for key, name in zip(ordered, names, strict=True):
            key.set("this", exp.column(name))
        query.set("order", exp.Order(expressions=ordered))
        for clause in ("limit", "offset"):
            wanted = self._select.args.get(clause)
            query.set(clause, wanted and wanted.copy())
        rows = self._run(query, lambda _: Table(stage)).arrow()["__row"]
        return table.take(rows)


def _read(text: str, call: exp.Expr) -> dict[str, Any]:
    from .parsing import placed

    try:
        return read_request(text)
    except ByzerError as error:
        raise placed(error, call) from None


def _order_by_answers(select: exp.Expr, models: Models) -> list[exp.Expr]:
    """Return what a `select` is ordered by, in words of what it reads, if an answer is among it; else nothing."""
    from sqlglot import exp

    clause = select.args.get("order") or select.args.get("sort")
    if clause is None:
        return []
    selected = list(select.expressions)
    named = {p.alias.lower(): p.this for p in selected if isinstance(p, exp.Alias)}
    keys = [key.copy() if isinstance(key, exp.Ordered) else exp.Ordered(this=key.copy()) for key in clause.expressions]
    for key in keys:
        place = int(key.this.name) if key.this.is_int else 0
        if 0 < place <= len(selected) and not any(p.is_star for p in selected[:place]):
            key.set("this", selected[place - 1].unalias().copy())
            continue
        for column in list(key.find_all(exp.Column)):
            meant = None if column.table else named.get(column.name.lower())
            if meant is not None:
                column.replace(exp.paren(meant.copy()))
    return keys if any(models.calls_in(key) for key in keys) else []


def _any(places: Sequence[Sequence[exp.Expr]], calls_in: object) -> bool:
    """Whether a condition among these calls a model."""
    assert callable(calls_in)
    return any(calls_in(condition) for place in places for condition in place)


def _name(projection: exp.Expr) -> str:
    return str(projection.alias_or_name)


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


def _distinct(names: list[str]) -> list[str]:
    from .running import distinct

    return distinct(names)


def _texts(values: list[str | None]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())
