"""A bare ``%%byzerllm``: statements, one after another."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import ParameterError

from .cells import substituted
from .dispatch import Context
from .run import run_statement

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ..language import Statement
    from ..session import Session


def call(session: Session, shell: InteractiveShell, cell: str) -> Any:
    """Run the cell's statements in order and return the last one's result.

    Raises:
        ByzerError: the first statement that fails; those before it have taken effect.
    """
    from ..language import parse_script

    context = Context(session, shell, argparse.Namespace(output=None, wait=False), cell)
    result: Any = None
    for statement in parse_script(cell):
        result = _run(context, statement, cell)
    return result


def _run(context: Context, statement: Statement, cell: str) -> Any:
    from ..language import Load, ModelCommand, Repartition, RunLLM, Select, Setup, SetVariable
    from ..parameters import at_the_caret

    session = context.session
    match statement:
        case Setup():
            setup = substituted(context, statement, cell)
            try:
                session.configure(setup.mode, {s.key: s.value for s in setup.settings})
            except ParameterError as error:
                raise at_the_caret(error, cell, setup) from None
            return None
        case SetVariable():
            session.variables[statement.name] = statement.value
            return None
        case RunLLM():
            return run_statement(context, substituted(context, statement, cell), cell)
        case ModelCommand(verb="exists"):
            return any(model.name == statement.name for model in session.models())
        case ModelCommand():
            session.undeploy(statement.name)
            return None
        case Load() | Select() | Repartition():
            raise ByzerError(f"a {type(statement).__name__.lower()} is read, but cannot be run yet")
