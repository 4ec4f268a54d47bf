"""``%%byzerllm run``: deploy, train and watch, merge, convert or evaluate, as the keys say."""

from __future__ import annotations

from typing import Any

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import ParameterError

from .cells import substituted
from .dispatch import Context, Parser
from .progress import Progress
from .tables import bind_table, bind_tables, output_table, take_over
from .waiting import wait_for


def parser() -> Parser:
    """The keys stand in the cell."""
    parser = Parser("run", cell=True)
    parser.add_argument("-o", "--output", metavar="NAME", help="bind what is made to this variable")
    parser.add_argument("--wait", action="store_true", help="wait for the job's end; interrupting leaves it running")
    return parser


def call(context: Context) -> Any:
    """Run the cell's statement."""
    from ..language import parse_run

    if context.cell is None:
        raise ByzerError("%byzerllm run needs a cell", do='write %%byzerllm run, and keys like action="infer" below it')
    statement = substituted(context, parse_run(context.cell), context.cell)
    return run_statement(context, statement, context.cell)


def run_statement(context: Context, statement: Any, text: str) -> Any:
    """Do what the keys say; show a job, and wait for it when asked to."""
    from ..checking import all_of_run
    from ..cluster.jobs import Job
    from ..live import JobView
    from ..parameters import at_its_key, route

    take_over(context)
    raw = {parameter.key: parameter.value for parameter in statement.parameters}
    line = Progress()
    try:
        deploys = route(raw) == "infer"
        line.soon(f"deploying {raw.get('udfName', '')}: the model is being loaded" if deploys else "starting")
        result = context.session.run(raw, wait=False, progress=line.show)
    except ParameterError as error:
        raise all_of_run(context.session, error, statement, text) from None
    except ByzerError as error:
        raise at_its_key(error, text, statement) from None
    finally:
        line.close()
    context.bind(context.options.output, result)
    bind_tables(context, result)
    if not isinstance(result, Job):
        return result
    if name := output_table(statement):
        bind_table(context, name, result)
    JobView(result).show()
    if context.options.wait or not result.detached:
        wait_for(result)
    return None
