"""All problems of a script before anything runs: settings, keys, names, queries, tables."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import ParameterError, read
from byzerllm_trainers.train_parameters import TrainParameters

from .language import (
    Assignment,
    LanguageError,
    Load,
    Problem,
    Repartition,
    RunLLM,
    Select,
    Setup,
    SetVariable,
    Span,
    Statement,
    problem_error,
    substitute,
)
from .language.places import Lines
from .parameters import ACTIONS, at_the_caret, configure, route
from .parameters.repartition import RepartitionParameters

if TYPE_CHECKING:
    from .session import Session


def check(session: Session, statements: Sequence[Statement], text: str, problems: Sequence[Problem] = ()) -> None:
    """Read every statement as if those before it had run; nothing is changed.

    What only running shows (a model folder that a job makes, a file's content, a column of a table that is
    still to be made) is not checked.

    Args:
        session: What is there before.
        statements: Those that could be read.
        text: The script.
        problems: Why the others could not; whatever these might have made counts as made.

    Raises:
        LanguageError: all problems of all statements.
    """
    checker = _Checker(session, text, unread=bool(problems))
    found = list(problems)
    for statement in statements:
        if any(statement.span.start <= span.start < statement.span.end for span, *_ in problems):
            checker.makes(statement)  # what else is wrong with it is a consequence
        else:
            found += checker.problems(statement)
    if found:
        raise problem_error(text, found)


_NAMED = re.compile(r"\b(?:as\s+`?|outputTable\W+)(\w+)", re.IGNORECASE)
"""What a statement may name that could not be read."""


def all_of_run(session: Session, error: ParameterError, statement: RunLLM, text: str) -> LanguageError:
    """Return what is wrong with the keys of a statement, and beside it a table and a folder that are not there."""
    beside = _Checker(session, text, unread=False).beside_keys(statement)
    return problem_error(text, [*at_the_caret(error, text, statement).problems, *beside])


class _Checker:
    """What the statements so far would have left behind."""

    def __init__(self, session: Session, text: str, *, unread: bool) -> None:
        self._session, self._text = session, text
        self._settings = session.settings
        self._texts: Mapping[str, str] = session.texts()
        names = [*session.table_names(), *(_NAMED.findall(text) if unread else ())]
        self._tables = {name.lower(): name for name in names}
        self._runs_before = unread  # a statement that may make a model's folder
        self._lines = Lines(text)

    def problems(self, statement: Statement) -> Sequence[Problem]:
        """Return what is wrong with the next statement."""
        try:
            statement = substitute(
                statement, self._texts.get, names=self._texts, variable=self._session.variable, text=self._text
            )
        except LanguageError as error:
            self.makes(statement)
            return error.problems
        found = list(self._of(statement))
        self.makes(statement)
        return found

    def _of(self, statement: Statement) -> Iterator[Problem]:
        match statement:
            case Setup():
                try:
                    self._settings = configure(
                        self._settings, statement.mode, {s.key: s.value for s in statement.settings}
                    )
                except ParameterError as error:
                    yield from at_the_caret(error, self._text, statement).problems
            case SetVariable():
                self._texts = {**self._texts, statement.name: statement.value}
            case RunLLM():
                yield from self._of_run(statement)
            case Load():
                yield from self._of_load(statement)
            case Select():
                yield from self._of_select(statement)
            case Repartition():
                yield from self._of_table(statement.source, statement.source_span)
                try:
                    read(RepartitionParameters, {option.key: option.value for option in statement.options})
                except ParameterError as error:
                    yield from at_the_caret(error, self._text, statement).problems
            case _:
                pass

    def _of_run(self, statement: RunLLM) -> Iterator[Problem]:
        raw = {parameter.key: parameter.value for parameter in statement.parameters}
        try:
            parameters = read(ACTIONS[route(raw)], raw)
            if isinstance(parameters, TrainParameters):
                parameters.require_data()
        except ParameterError as error:
            yield from at_the_caret(error, self._text, statement).problems
            yield from self.beside_keys(statement)
            return
        yield from self._of_tables(statement)

    def beside_keys(self, statement: RunLLM) -> Iterator[Problem]:
        """Yield what is wrong with the tables and the model folder of a statement whose keys are wrong."""
        yield from self._of_tables(statement)
        given = {parameter.key: parameter for parameter in statement.parameters}
        action = given["action"].value if "action" in given else "finetune"
        takes_a_folder = difflib.get_close_matches(action, ACTIONS, n=1) in (["infer"], ["finetune"])
        if "localModelDir" in given and takes_a_folder and not self._runs_before:
            yield from self._of_folder(given["localModelDir"])

    def _of_folder(self, parameter: Assignment) -> Iterator[Problem]:
        from byzerllm_adapters.model_folder import check_model_folder

        from .model_places import job_around

        if not parameter.value or job_around(Path(parameter.value)):  # a job may be at it
            return
        try:
            check_model_folder(parameter.value)
        except ByzerError as error:
            yield parameter.value_span, error.what, error.do

    def _of_tables(self, statement: RunLLM) -> Iterator[Problem]:
        for parameter in statement.parameters:
            if parameter.key in ("inputTable", "evalTable") and parameter.value:
                yield from self._of_table(parameter.value, parameter.value_span)

    def _of_load(self, statement: Load) -> Iterator[Problem]:
        from .tables.load import read_options

        try:
            read_options(statement.format, {option.key: option.value for option in statement.options})
        except ParameterError as error:
            yield from at_the_caret(error, self._text, statement).problems
        except ByzerError as error:
            yield statement.format_span, error.what, error.do

    def _of_select(self, statement: Select) -> Iterator[Problem]:
        from .queries import tables_of
        from .tables.select import parse_query

        try:
            query = parse_query(statement.sql, self._texts.get, names=self._texts)
        except ByzerError as error:
            yield in_query(error, statement, self._text)
            return
        for name, offset in tables_of(query):
            begin = statement.sql_span.start + offset
            yield from self._of_table(name, self._lines.span(begin, begin + len(name)))

    def _of_table(self, name: str, span: Span) -> Iterator[Problem]:
        """A name of a table that nothing has made so far."""
        if name.lower() in self._tables:
            return
        near = difflib.get_close_matches(name, self._tables.values(), n=1)
        hint = f"did you mean {near[0]}?" if near else "load or select makes one, and so does a DataFrame variable"
        yield span, f"there is no table {name}", hint

    def makes(self, statement: Statement) -> None:
        """Note what a statement would leave behind."""
        match statement:
            case Load() | Repartition():
                self._tables[statement.table.lower()] = statement.table
            case Select(table=str(name)):
                self._tables[name.lower()] = name
            case RunLLM():
                self._runs_before = True
                names = [p.value for p in statement.parameters if p.key == "outputTable"]
                if any((p.key, p.value) == ("action", "evaluate") for p in statement.parameters):
                    names += [f"{name}_predictions" for name in names]
                self._tables |= {name.lower(): name for name in names}
            case _:
                pass


def in_query(error: ByzerError, statement: Select, text: str) -> Problem:
    """Return an error of a query as a problem at its place in the cell."""
    offset, length = getattr(error, "offset", None), getattr(error, "length", 1)
    if offset is None:
        return statement.sql_span, error.what, error.do
    begin = statement.sql_span.start + offset
    return Span.of(text, begin, min(begin + length, statement.sql_span.end)), error.what, error.do
