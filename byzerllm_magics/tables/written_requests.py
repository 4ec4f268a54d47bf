"""What is wrong with the request of a model's call as it is written, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byzerllm_adapters.errors import ByzerError

from .llm_functions import is_call_of, is_llm_function
from .requests import key_problem, no_instruction, on_error_problem

if TYPE_CHECKING:
    from sqlglot import exp

REQUESTS = ("llm_param", "llm_stack")
"""Functions that make a request."""


def check_request(call: exp.Expr) -> None:
    """Let a map be a request, as if llm_param were around it, and refuse what can be none.

    Raises:
        SqlError: a call has another number of arguments than one, or a function that makes no request; a key or a
            value that is written there cannot be one.
    """
    from sqlglot import exp

    from .parsing import placed

    form = f'{call.name}(llm_param(map("instruction", question)))'
    if len(call.expressions) != 1:
        what = f"the model {call.name!r} takes one request, not {len(call.expressions)} arguments"
        raise placed(ByzerError(what, do=f"write {form}"), call)
    [given] = call.expressions
    if isinstance(given, exp.VarMap | exp.Map):
        call.set("expressions", [exp.Anonymous(this="llm_param", expressions=[given])])
    elif isinstance(given, exp.Anonymous) and is_llm_function(given.name) and given.name.lower() not in REQUESTS:
        name = given.name.lower()
        vector = f'llm_embedding({call.name}(llm_param(map("instruction", text, "embedding", true))))'
        error = ByzerError(
            f"the model {call.name!r} is called with {name}(…), which makes no request",
            do=f"write {vector if name == 'llm_embedding' else form}",
        )
        raise placed(error, given)
    for node in call.find_all(exp.Anonymous):
        if is_call_of(node, "llm_param") and len(node.expressions) == 1:
            _check_map(node.expressions[0])


def _check_map(given: exp.Expr) -> None:
    """Refuse keys, and values of keys, that no request has; those that are no literals show when they are known."""
    from sqlglot import exp

    from .parsing import placed

    if not isinstance(given, exp.VarMap):
        return
    keys, values = given.args["keys"].expressions, given.args["values"].expressions
    for key, value in zip(keys, values, strict=True):
        if not key.is_string:
            return
        if problem := key_problem(key.name):
            raise placed(problem, key)
        if key.name == "on_error" and value.is_string and (problem := on_error_problem(value.name)):
            raise placed(problem, value)
    if "instruction" not in [key.name for key in keys]:
        raise placed(no_instruction(), given)
