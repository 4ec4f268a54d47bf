"""A session's `select`: tables by name, deployed models as functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

if TYPE_CHECKING:
    from sqlglot import exp

    from .session import Session
    from .tables import Table


def run(session: Session, sql: str, progress: Callable[[str], None], *, first_line: int = 1) -> Table:
    """Run a query; what it tolerates, and what calls of models left out or failed at, is printed.

    Args:
        session: Whose tables and models.
        sql: The query.
        progress: Told how many calls of models were answered.
        first_line: The line of the cell that the query begins in, for the notes.

    Raises:
        ByzerError: the query cannot be read or run, or was interrupted.
    """
    try:
        return _run(session, sql, progress, first_line)
    except KeyboardInterrupt:
        raise ByzerError("the query was interrupted", do="its table was not made; run the statement again") from None


def _run(session: Session, sql: str, progress: Callable[[str], None], first_line: int) -> Table:
    from .tables.carried_errors import carry_errors
    from .tables.llm_functions import rewrite
    from .tables.model_calls import Models, run_with_models
    from .tables.select import parse_query, run_query

    names = session.texts()

    def note(text: str, offset: int) -> None:
        print(f"line {first_line + sql.count(chr(10), 0, offset)}: {text}")

    query = parse_query(sql, names.get, names=names, note=note)
    tables = cache(session.tables.table)
    if not _may_call(query):
        return run_query(rewrite(carry_errors(query, tables, lambda _: [])), tables)

    def ask(model: str, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        from .cluster.answers import answer_all

        def answered(done: int) -> None:
            progress(f"{model}: {done:,} of {len(requests):,} calls answered")

        deployment = session.model(model)
        answered(0)
        return answer_all(deployment, requests, answered)

    models = Models(session.own_models(), ask)
    table = run_with_models(carry_errors(query, tables, models.calls_in), tables, models, run_query)
    for line in _remarks(models):
        print(line)
    return table


def _may_call(query: exp.Query) -> bool:
    """Whether a query may call a model: it names a function that neither SQL nor this language has."""
    from sqlglot import exp

    from .tables.llm_functions import is_llm_function

    return any(not is_llm_function(function.name) for function in query.find_all(exp.Anonymous))


def _remarks(models: Any) -> list[str]:
    """Return what a user has to know of the calls, a line each."""
    lines = []
    if failed := sum(models.failures.values()):
        [(why, count)] = models.failures.most_common(1)
        first = why.splitlines()[0]
        more = f" (and {failed - count} for other reasons)" if failed > count else ""
        lines.append(f"{failed:,} of {models.calls:,} calls failed and are NULL; llm_error(…) says why: {first}{more}")
    if models.ignored:
        lines.append(f"without effect for this model: {', '.join(sorted(models.ignored))}")
    return lines


def tables_of(query: exp.Query) -> list[tuple[str, int]]:
    """Return the tables that a query reads, with the offset in its text where each stands."""
    from sqlglot import exp

    from .tables.parsing import place
    from .tables.running import is_of_with

    found = []
    for table in query.find_all(exp.Table):
        if isinstance(table.this, exp.Identifier) and not is_of_with(table):
            found.append((".".join(part.name for part in table.parts), place(table).get("offset", 0)))
    return found
