"""``%%byzerllm estimate``: what training will take; the cell is that of ``%%byzerllm run``."""

from __future__ import annotations

from typing import Any

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import ParameterError

from .cells import substituted
from .dispatch import Context, Parser


def parser() -> Parser:
    """The keys stand in the cell, or a job's name in the line."""
    parser = Parser("estimate", cell=True)
    parser.add_argument("job", nargs="?", help="a job, in place of a cell")
    parser.add_argument("-o", "--output", metavar="NAME", help="bind the estimate to this variable")
    return parser


def call(context: Context) -> Any:
    """Estimate the cell's statement, or a job; nothing is started."""
    name = context.options.job
    if (name is None) == (context.cell is None):
        do = 'write %%byzerllm estimate and the keys of a "%%byzerllm run" below it, or %byzerllm estimate JOB'
        raise ByzerError("%byzerllm estimate needs a cell or the name of a job, one of them", do=do)
    found = context.session.estimate(name) if name else _of_cell(context, context.cell or "")
    context.bind(context.options.output, found)
    return found


def _of_cell(context: Context, text: str) -> Any:
    from ..checking import all_of_run
    from ..language import parse_run
    from ..parameters import at_its_key

    statement = substituted(context, parse_run(text), text)
    try:
        return context.session.estimate({parameter.key: parameter.value for parameter in statement.parameters})
    except ParameterError as error:
        raise all_of_run(context.session, error, statement, text) from None
    except ByzerError as error:
        raise at_its_key(error, text, statement) from None
