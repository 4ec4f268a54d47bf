"""The three ways a cell is read: a script, the body of `setup`, the body of `run`."""

from __future__ import annotations

from .errors import problem_error
from .faults import NO_PARAMETERS, ONE_STATEMENT
from .reader import Reader
from .statements import RunLLM, Setup, Statement


def parse_script(text: str) -> tuple[Statement, ...]:
    """Return the statements of a bare `%%byzerllm` cell: any sequence of them, separated by `;`.

    Raises:
        LanguageError: The text cannot be read; all of its problems are named.

    """
    reader = Reader(text)
    statements = [reader.statement(piece) for piece in reader.pieces]
    _raise_if_any(reader)
    return tuple(statement for statement in statements if statement is not None)


def parse_setup(text: str) -> Setup:
    """Return the one `Setup` that the body of a `%%byzerllm setup` cell means; an empty body changes nothing.

    `single` alone on a line is a mode, `num_gpus=2` a setting; the original's `!byzerllm setup single;` and
    `!byzerllm setup "num_gpus=2";` do as well, and several statements merge in order.

    Raises:
        LanguageError: The text cannot be read; all of its problems are named.

    """
    reader = Reader(text)
    setup = reader.setup(reader.nodes("setup_body"), reader.span(reader.tokens))
    _raise_if_any(reader)
    return setup


def parse_run(text: str) -> RunLLM:
    """Return the `RunLLM` that the body of a `%%byzerllm run` cell means.

    The body is the where-clause alone, `key=value` a line (values may go without quotes), a mixture of both,
    or the whole statement `` run command as LLM.`` where … ``.

    Raises:
        LanguageError: The text cannot be read, or holds no parameter; all of its problems are named.

    """
    reader = Reader(text)
    span = reader.span(reader.tokens)
    if reader.pieces and reader.pieces[0][0].type == "_RUN":
        whole, *others = reader.pieces
        statement = reader.statement(whole)
        reader.problems += [(reader.span(other), *ONE_STATEMENT) for other in others]
    else:
        statement = RunLLM(reader.assignments(reader.nodes("run_body")), span)
    if not (reader.problems or (isinstance(statement, RunLLM) and statement.parameters)):
        reader.problems.append((span, *NO_PARAMETERS))
    _raise_if_any(reader)
    assert isinstance(statement, RunLLM), "a piece that begins with `run` is a RunLLM or has a problem"
    return statement


def _raise_if_any(reader: Reader) -> None:
    if reader.problems:
        raise problem_error(reader.text, reader.problems)
