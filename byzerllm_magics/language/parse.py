"""The three ways a cell is read: a script, the body of `setup`, the body of `run`."""

from __future__ import annotations

from .errors import Problem, problem_error
from .faults import NO_PARAMETERS, ONE_STATEMENT, own_statement
from .reader import Reader
from .statements import Repartition, RunLLM, Setup, Statement


def parse_script(text: str) -> tuple[Statement, ...]:
    """Return the statements of a bare `%%byzerllm` cell: any sequence of them, separated by `;`.

    What is clearly a slip of the pen is read as what it must mean, and noted in the statement's `notes`: full-width
    punctuation in SQL, a comma before its `)`, an `and` directly after `where`.

    Raises:
        LanguageError: The text cannot be read; all of its problems are named.

    """
    statements, problems = read_script(text)
    if problems:
        raise problem_error(text, problems)
    return statements


def read_script(text: str) -> tuple[tuple[Statement, ...], list[Problem]]:
    """Return the statements that can be read, as `parse_script` does, and what is wrong with the others."""
    reader = Reader(text)
    return tuple(reader.statements()), reader.problems


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
        if isinstance(statement, Repartition):
            name = next(token for token in whole if token.type == "_REPARTITION")
            reader.problems.append((reader.span([name]), *own_statement("TableRepartition")))
    else:
        statement = RunLLM(reader.assignments(reader.nodes("run_body")), span, reader.notes(reader.tokens))
    if not (reader.problems or (isinstance(statement, RunLLM) and statement.parameters)):
        reader.problems.append((span, *NO_PARAMETERS))
    _raise_if_any(reader)
    assert isinstance(statement, RunLLM), "a piece that begins with `run` is a RunLLM or has a problem"
    return statement


def _raise_if_any(reader: Reader) -> None:
    if reader.problems:
        raise problem_error(reader.text, reader.problems)
