"""Byzer's `llm_…` functions of SQL, each as an expression that DuckDB evaluates.

A request to a model and its response are JSON texts between the functions:
``{"instruction": …, "history": […], …}`` and ``{"output": …, "input": the request, "metadata": {…}}``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
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

    from .parsing import placed

    query = query.copy()
    name_answers(query, lambda _: ())
    for node in reversed(list(query.find_all(exp.Anonymous))):  # the innermost first
        build = FUNCTIONS.get(node.name.lower())
        if build is None:
            continue
        try:
            new = build(list(node.expressions))
        except ByzerError as error:
            raise placed(error, node) from None
        new.meta.update(node.meta, function=node.name.lower())  # for errors while it runs
        node.replace(new)
    return query


def name_answers(query: exp.Expr, calls: Callable[[exp.Expr], Collection[exp.Expr]]) -> None:
    """Give what is selected without a name the name of its `llm_…` function or else of the model that it calls.

    Args:
        query: It is changed.
        calls: Returns the calls of models inside an expression.
    """
    from sqlglot import exp

    for select in query.find_all(exp.Select):
        for projection in select.expressions:
            if isinstance(projection, exp.Alias | exp.Column | exp.Star | exp.Aliases | exp.Dot):
                continue
            name = ""
            if isinstance(projection, exp.Anonymous) and is_llm_function(projection.name):
                name = projection.name.lower()
            elif made := list(calls(projection)):
                name = made[-1].name
            if name:
                projection.replace(exp.alias_(projection.copy(), name, quoted=True))


def is_call_of(node: exp.Expr | None, name: str) -> bool:
    """Whether a node calls the function of that name."""
    from sqlglot import exp

    return isinstance(node, exp.Anonymous) and node.name.lower() == name


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
    assert len(keys) == len(values), "a map with a key too many is not read"
    pairs = [part for pair in zip(keys, values, strict=True) for part in pair]
    return exp.cast(exp.Anonymous(this="json_object", expressions=pairs), "VARCHAR", dialect="duckdb")


def _prompt(arguments: list[exp.Expr]) -> exp.Expr:
    """`llm_prompt("Hello {0}", array(name))`: each `{i}` replaced once; what comes in is not read again."""
    from sqlglot import exp

    form = 'llm_prompt("Describe {0} and {1}", array(first, second))'
    template, values = _exactly(2, "llm_prompt", arguments, form)
    if isinstance(values, exp.Array):  # whose elements may be of several types
        values = exp.Array(expressions=[exp.cast(value, "VARCHAR", dialect="duckdb") for value in values.expressions])
    elif isinstance(values, exp.Literal):
        values = exp.Array(expressions=[exp.cast(values, "VARCHAR", dialect="duckdb")])
    else:  # whether it is a list or one value is known when the query runs
        values = _duckdb(
            """CASE WHEN :given IS NULL THEN NULL WHEN ends_with(typeof(:given), ']') THEN TRY_CAST(:given AS VARCHAR[])
               ELSE [TRY_CAST(:given AS VARCHAR)] END""",
            given=values,
        )
    return _duckdb(
        r"""CASE WHEN :given IS NOT NULL THEN array_to_string(list_transform(
            regexp_extract_all(:template, '\{\d+\}|[^{]+|\{'),
            lambda part: CASE WHEN regexp_full_match(part, '\{\d+\}')
                THEN coalesce(list_extract(:given, CAST(regexp_extract(part, '\d+') AS BIGINT) + 1), part)
                ELSE part END), '') END""",
        template=template,
        given=values,
    )


def _stack(arguments: list[exp.Expr]) -> exp.Expr:
    """`llm_stack(answer, llm_param(…))`: the request as the next question of the answer's conversation."""
    form = 'llm_stack(answer, llm_param(map("instruction", "And then?")))'
    previous, request = _exactly(2, "llm_stack", arguments, form)
    return _duckdb(
        """CASE WHEN :previous IS NULL OR :request IS NULL THEN NULL
        WHEN NOT json_valid(:previous) THEN error(concat('llm_stack continues an answer of a model, not ', :previous))
        WHEN NOT json_valid(:request) THEN error(concat('llm_stack continues with a request, not with ', :request))
        ELSE CAST(json_merge_patch(
            :request,
            CASE WHEN json_extract_string(:request, '$.system_msg') IS NULL
                THEN json_object('system_msg', json_extract(:previous, '$.input.system_msg')) ELSE '{}' END,
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
    return _of_answer("llm_result", ":output", answer)


def _embedding(arguments: list[exp.Expr]) -> exp.Expr:
    """`llm_embedding(answer)`: the vector that an embedding model answered with."""
    [answer] = _exactly(1, "llm_embedding", arguments, "llm_embedding(answer)")
    return _of_answer("llm_embedding", "TRY_CAST(:output AS DOUBLE[])", answer)


def _of_answer(name: str, form: str, answer: exp.Expr) -> exp.Expr:
    """Return what is taken out of an answer; anything else fails the query instead of being NULL.

    Args:
        name: The function.
        form: What becomes of the answer's ``:output``, a text.
        answer: The answer.
    """
    text = "CAST(:answer AS VARCHAR)"
    output = form.replace(":output", f"json_extract_string({text}, '$.output')")
    return _duckdb(
        f"""CASE WHEN :answer IS NULL THEN NULL
        WHEN CASE WHEN json_valid({text}) THEN json_exists({text}, '$.output') ELSE false END THEN {output}
        ELSE error(concat('{name} takes an answer of a model, not ', :answer)) END""",
        answer=answer,
    )


def _error(arguments: list[exp.Expr]) -> exp.Expr:
    """`llm_error(answer)`: why a column of answers is NULL; it is kept in a hidden column beside it."""
    from sqlglot import exp

    [answer] = _exactly(1, "llm_error", arguments, "llm_error(answer)")
    if not isinstance(answer, exp.Column):
        raise ByzerError(LLM_ERROR, do=LLM_ERROR_HELP)
    column = exp.column(HIDDEN_PREFIX + answer.name, table=answer.args.get("table"), quoted=True)
    column.this.meta.update(answer.this.meta)
    return column


LLM_ERROR = "llm_error takes a column of answers"
LLM_ERROR_HELP = "make it first: select chat(…) as answer … as t; then select llm_error(answer) from t;"


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
