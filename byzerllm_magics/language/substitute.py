"""`${name}` inside values: replaced once, what comes in is never read again."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from .errors import Problem, problem_error
from .places import Span
from .statements import Assignment, Load, ModelCommand, Repartition, RunLLM, Select, Setup, SetVariable, Statement

_REFERENCE = re.compile(r"\$\{\s*([^\W\d]\w*)\s*\}")

Lookup = Callable[[str], str | None]


def substitute(
    statement: Statement,
    lookup: Lookup,
    *,
    names: Iterable[str] = (),
    variable: Callable[[str], object] = lambda _: None,
    text: str = "",
) -> Statement:
    """Return the statement with each `${name}` in its values replaced by what `lookup` returns for it.

    Values are those of settings, parameters and options, a variable's text and a `load`'s path. A `Select` is returned
    as it is: its string literals are known to the SQL parser alone, so they are replaced in the syntax tree.

    Args:
        statement: As parsed from the cell.
        lookup: The text for a name, or None when it is undefined.
        names: Defined names, for the suggestion.
        variable: What the notebook's variable of a name is, None without one: it may be nothing that a value can hold.
        text: The cell; with it, an error shows the source line.

    Raises:
        LanguageError: Names are undefined; it names all of them.

    """
    problems: list[Problem] = []
    known = tuple(names)

    def replaced(value: str, span: Span) -> str:
        def one(match: re.Match[str]) -> str:
            found = lookup(match[1])
            if found is None:
                problems.append(_undefined(match[1], _reference_span(text, span, match[1]), known, variable(match[1])))
                return match[0]
            return found

        return _REFERENCE.sub(one, value)

    def each(assignments: tuple[Assignment, ...]) -> tuple[Assignment, ...]:
        return tuple(replace(a, value=replaced(a.value, a.value_span)) for a in assignments)

    result: Statement
    match statement:
        case Setup():
            result = replace(statement, settings=each(statement.settings))
        case RunLLM():
            result = replace(statement, parameters=each(statement.parameters))
        case SetVariable():
            result = replace(statement, value=replaced(statement.value, statement.value_span))
        case Load():
            path = replaced(statement.path, statement.path_span)
            result = replace(statement, path=path, options=each(statement.options))
        case Repartition():
            result = replace(statement, options=each(statement.options))
        case ModelCommand() | Select():
            result = statement
    if problems:
        raise problem_error(text, problems)
    return result


def _reference_span(text: str, value: Span, name: str) -> Span:
    """Return where `${name}` stands inside a value, or the value's own span if the text is not at hand."""
    found = re.compile(rf"\$\{{\s*{name}\s*\}}").search(text, value.start, value.end)
    return Span.of(text, found.start(), found.end()) if found else value


def _undefined(name: str, span: Span, names: tuple[str, ...], held: object) -> Problem:
    if held is not None and not name.startswith("_"):  # such a name is never looked up
        kind = type(held).__name__
        article = "an" if kind[0].lower() in "aeiou" else "a"
        what = f"${{{name}}} is {article} {kind}; only text and numbers can be put into a value"
        return span, what, "make a text of it in Python first"
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean ${{{near[0]}}}? Otherwise define" if near else "define"
    return span, f"${{{name}}} is not defined", f"{hint} it first, by set or as a Python variable"
