"""Byzer's `llm_…` functions of SQL, each as an expression that DuckDB evaluates.

A request to a model and its response are JSON texts between the functions:
``{"instruction": …, "history": […], …}`` and ``{"output": …, "input": the request, "metadata": {…}}``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from byzerllm_adapters.errors import ByzerError

from .table import HIDDEN_PREFIX

if TYPE_CHECKING:
    from sqlglot import exp


def rewrite(query: exp.Expr) -> exp.Expr:
    """Return the query with its `llm_…` functions as expressions of DuckDB.

    Raises:
        ByzerError: wrong arguments.
    """
    from sqlglot import exp

    query = query.copy()
    for node in reversed(list(query.find_all(exp.Anonymous))):  # the innermost first
        build = FUNCTIONS.get(node.name.lower())
        if build is not None:
            node.replace(build(list(node.expressions)))
    return query


def is_llm_function(name: str) -> bool:
    """Whether a function's name is one of these."""
    return name.lower() in FUNCTIONS


def _param(arguments: list[exp.Expr]) -> exp.Expr:
    """`llm_param(map("instruction", …, "temperature", 0.3))`: a request; values may mix types."""
    from sqlglot import exp

    [given] = _exactly(1, "llm_param", arguments, 'llm_param(map("instruction", question))')
    if not isinstance(given, exp.VarMap):
        return _duckdb("CAST(to_json(:given) AS VARCHAR)", given=given)
    keys, values = given.args["keys"].expressions, given.args["values"].expressions
    if len(keys) != len(values):
        raise ByzerError("map(…) has a key without a value", do='write map("instruction", question, "temperature", 0)')
    pairs = [part for pair in zip(keys, values, strict=True) for part in pair]
    return exp.cast(exp.Anonymous(this="json_object", expressions=pairs), "VARCHAR", dialect="duckdb")


def _prompt(arguments: list[exp.Expr]) -> exp.Expr:
    """`llm_prompt("Hello {0}", array(name))`: each `{i}` replaced once; what comes in is not read again."""
    from sqlglot import exp

    form = 'llm_prompt("Describe {0} and {1}", array(first, second))'
    template, values = _exactly(2, "llm_prompt", arguments, form)
    if isinstance(values, exp.Array):  # whose elements may be of several types
        values = exp.Array(expressions=[exp.cast(value, "VARCHAR", dialect="duckdb") for value in values.expressions])
    return _duckdb(
        r"""array_to_string(list_transform(
            regexp_extract_all(:template, '\{\d+\}|[^{]+|\{'),
            lambda part: CASE WHEN regexp_full_match(part, '\{\d+\}')
                THEN coalesce(list_extract(:given, CAST(regexp_extract(part, '\d+') AS BIGINT) + 1), part)
                ELSE part END), '')""",
        template=template,
        given=values,
    )


def _stack(arguments: list[exp.Expr]) -> exp.Expr:
    """`llm_stack(answer, llm_param(…))`: the request as the next question of the answer's conversation."""
    form = 'llm_stack(answer, llm_param(map("instruction", "And then?")))'
    previous, request = _exactly(2, "llm_stack", arguments, form)
    return _duckdb(
        """CASE WHEN :previous IS NULL THEN NULL ELSE CAST(json_merge_patch(
            json_object('system_msg', json_extract(:previous, '$.input.system_msg')),
            :request,
            json_object('history', list_concat(
                coalesce(json_extract(:previous, '$.input.history[*]'), []),
                [json_object('role', 'user', 'content', json_extract(:previous, '$.input.instruction')),
                 json_object('role', 'assistant', 'content', json_extract(:previous, '$.output'))]))
        ) AS VARCHAR) END""",
        previous=previous,
        request=request,
    )


def _result(arguments: list[exp.Expr]) -> exp.Expr:
    """`llm_result(answer)`: the answer's text."""
    [answer] = _exactly(1, "llm_result", arguments, "llm_result(answer)")
    return _duckdb("json_extract_string(:answer, '$.output')", answer=answer)


def _embedding(arguments: list[exp.Expr]) -> exp.Expr:
    """`llm_embedding(answer)`: the vector that an embedding model answered with."""
    [answer] = _exactly(1, "llm_embedding", arguments, "llm_embedding(answer)")
    return _duckdb("CAST(json_extract(:answer, '$.output') AS DOUBLE[])", answer=answer)


def _error(arguments: list[exp.Expr]) -> exp.Expr:
    """`llm_error(answer)`: why a column of answers is NULL; it is kept in a hidden column beside it."""
    from sqlglot import exp

    [answer] = _exactly(1, "llm_error", arguments, "llm_error(answer)")
    if not isinstance(answer, exp.Column):
        raise ByzerError("llm_error takes a column of answers", do="select chat(…) as answer … and llm_error(answer)")
    return exp.column(HIDDEN_PREFIX + answer.name, table=answer.args.get("table"), quoted=True)


FUNCTIONS: dict[str, Callable[[list[exp.Expr]], exp.Expr]] = {
    "llm_param": _param,
    "llm_prompt": _prompt,
    "llm_stack": _stack,
    "llm_result": _result,
    "llm_response_predict": _result,
    "llm_embedding": _embedding,
    "llm_error": _error,
}


def _exactly(count: int, name: str, arguments: list[exp.Expr], form: str) -> list[exp.Expr]:
    if len(arguments) != count:
        raise ByzerError(f"{name} takes {count} argument{'s' * (count > 1)}, not {len(arguments)}", do=f"write {form}")
    return arguments


def _duckdb(snippet: str, **arguments: exp.Expr) -> exp.Expr:
    """Return an expression written in DuckDB's dialect, with expressions in place of `:name`."""
    import sqlglot
    from sqlglot import exp

    return exp.replace_placeholders(
        sqlglot.parse_one(snippet, dialect="duckdb"), **{name: value.copy() for name, value in arguments.items()}
    )
