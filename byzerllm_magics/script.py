"""A script: all of its statements are checked before the first one runs, then each runs on the session in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import ParameterError

from .checking import check, in_query
from .language import (
    LanguageError,
    Load,
    ModelCommand,
    Repartition,
    RunLLM,
    Select,
    Setup,
    SetVariable,
    Statement,
    problem_error,
    read_script,
    substitute,
)
from .language.secrets import without_secrets
from .parameters import at_its_key, at_the_caret
from .parameters.cell import Parametrised
from .tables.sql_error import SqlError

if TYPE_CHECKING:
    from .session import Session


class Observer(Protocol):
    """Is told how a script goes."""

    def begins(self, number: int, of: int, statement: Statement) -> None:
        """Statement ``number`` of ``of``, counted from 1, begins."""

    def progress(self, text: str) -> None:
        """How far the statement is."""

    def ended(self, statement: Statement, result: Any) -> None:
        """A statement has taken effect; ``result`` is a table, a job, a model, a yes or no, or None."""


@dataclass(frozen=True)
class Silent:
    """Tells nobody."""

    def begins(self, number: int, of: int, statement: Statement) -> None:
        """Do nothing."""

    def progress(self, text: str) -> None:
        """Do nothing."""

    def ended(self, statement: Statement, result: Any) -> None:
        """Do nothing."""


def run_script(session: Session, text: str, observer: Observer = Silent()) -> Any:
    """Run the statements of a text one after another; return the last result: a table, a job, a model, a yes or no.

    Raises:
        LanguageError: the text cannot be read, or a statement cannot be used: all problems, and nothing was run.
        ByzerError: a statement failed; it is named. Those before it have taken effect, those after it not.
    """
    statements, problems = read_script(text)
    check(session, statements, text, problems)
    last: Any = None
    for number, statement in enumerate(statements, 1):
        observer.begins(number, len(statements), statement)
        try:
            result = execute(session, statement, text, observer.progress)
        except ByzerError as error:
            raise error if len(statements) == 1 else _named(error, statement, number, len(statements), text) from None
        observer.ended(statement, result)
        last = last if result is None else result
    return last


def execute(session: Session, statement: Statement, text: str, progress: Callable[[str], None]) -> Any:
    """Run one statement on a session and return its result.

    Raises:
        ByzerError: it failed; where a key or a name of the statement is wrong, with its place in the text.
    """
    names = session.texts()
    statement = substitute(statement, names.get, names=names, variable=session.variable, text=text)
    try:
        return _run(session, statement, progress)
    except ParameterError as error:
        assert isinstance(statement, Parametrised), "only keys have such problems"
        raise at_the_caret(error, text, statement) from None
    except SqlError as error:
        assert isinstance(statement, Select), "only queries have such problems"
        raise problem_error(text, [in_query(error, statement, text)]) from None
    except ByzerError as error:
        raise at_its_key(error, text, statement) from None


def _run(session: Session, statement: Statement, progress: Callable[[str], None]) -> Any:
    result: Any = None
    match statement:
        case Setup():
            session.configure(statement.mode, {s.key: s.value for s in statement.settings})
        case SetVariable():
            session.variables[statement.name] = statement.value
        case RunLLM():
            keys = {p.key: p.value for p in statement.parameters}
            result = session.run(keys, wait=False, progress=progress)
        case Load():
            options = {option.key: option.value for option in statement.options}
            result = session.load(statement.format, statement.path, statement.table, options)
        case Select():
            line = statement.sql_span.line
            result = session.select(statement.sql, statement.table, progress=progress, first_line=line)
        case Repartition():
            result = _repartition(session, statement)
        case ModelCommand(verb="exists"):
            result = any(model.name == statement.name for model in session.models())
        case ModelCommand():
            session.undeploy(statement.name)
    return result


def _repartition(session: Session, statement: Repartition) -> Any:
    """Cut a table into partitions; with source and keys looked at before, what may be wrong is a column's name."""
    options = {option.key: option.value for option in statement.options}
    session.table(statement.source)
    try:
        return session.repartition(statement.source, statement.table, options)
    except ParameterError:
        raise
    except ByzerError as error:
        raise ByzerError(error.what, where=f"in partitionCols, {error.where}", do=error.do) from None


def title(statement: Statement, text: str) -> str:
    """Return a statement's beginning, as progress and errors name it."""
    written = " ".join(without_secrets(text)[statement.span.start : statement.span.end].split())
    return written if len(written) <= 60 else f"{written[:59]}…"


def _named(error: ByzerError, statement: Statement, number: int, of: int, text: str) -> ByzerError:
    """Return an error with the statement that it comes from; one that shows a place in the cell does so already."""
    if isinstance(error, LanguageError):
        return error
    place = f"statement {number} of {of}, line {statement.span.line}: {title(statement, text)}"
    return type(error)(error.what, where="\n".join(part for part in (place, error.where) if part), do=error.do)
