"""Expressions written in DuckDB's words, with others in their places."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import sqlglot
from sqlglot import exp

from .sql_error import SqlError


def filled(template: str, *arguments: exp.Expression) -> exp.Expression:
    """Return DuckDB's expression with arguments in the places of ``:a``, ``:b``, …

    Raises:
        SqlError: there are too few of them.
    """
    values = {letter: enclosed(argument) for letter, argument in zip("abcdefgh", arguments, strict=False)}
    result = exp.replace_placeholders(_parsed(template).copy(), **values)
    if result.find(exp.Placeholder):
        raise SqlError("an argument is missing")
    return enclosed(result)


def enclosed(node: exp.Expression) -> exp.Expression:
    """Return an expression so that it binds as one whatever stands beside it."""
    loose = isinstance(node, exp.Binary | exp.Unary | exp.Predicate) and not isinstance(node, exp.Paren)
    return exp.paren(node, copy=False) if loose else node


def applied(function: exp.Lambda, values: Sequence[exp.Expression]) -> exp.Expression:
    """Return a lambda's body with values in the places of its parameters."""
    by_name = {parameter.name: value for parameter, value in zip(function.expressions, values, strict=True)}
    body = function.this.copy()
    holder = exp.Paren(this=body)
    for name in list(holder.find_all(exp.Identifier)):
        if name.name in by_name:
            place = name.parent if isinstance(name.parent, exp.Column) and not name.parent.table else name
            place.replace(by_name[name.name].copy())
    return holder


@cache
def _parsed(template: str) -> exp.Expression:
    return sqlglot.parse_one(template, dialect="duckdb")
