"""Which rows need a part of an expression: those whose branch of `case`, `if`, `coalesce`, `and` or `or` it stands in.

A call of a model costs seconds where an operator costs nanoseconds: only rows that need one are asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot import exp


def guards(node: exp.Expr) -> list[exp.Expr]:
    """Return conditions, none of them ever NULL, that all hold in every row that needs a node; none: all rows do."""
    found: list[exp.Expr] = []
    child, parent = node, node.parent
    while parent is not None:
        found += _guards_in(parent, child)
        child, parent = parent, parent.parent
    return found


def any_of(alternatives: Sequence[Sequence[exp.Expr]]) -> exp.Expr:
    """Return a condition that holds where all conditions of at least one alternative do."""
    from sqlglot import exp

    return exp.or_(*(exp.and_(*conditions, copy=True) for conditions in alternatives))


def _guards_in(parent: exp.Expr, child: exp.Expr) -> list[exp.Expr]:
    """Return what has to hold for a part of one operator to be needed, its operator being needed."""
    from sqlglot import exp

    key = child.arg_key
    if isinstance(parent, exp.Case):
        ifs = parent.args["ifs"]
        before = {"ifs": child.index or 0, "default": len(ifs)}.get(key or "", 0)
        return [_fails(_condition(parent, branch)) for branch in ifs[:before]]
    if isinstance(parent, exp.If) and key in ("true", "false"):
        case = parent.parent
        condition = _condition(case, parent) if isinstance(case, exp.Case) else parent.this.copy()
        return [_holds(condition) if key == "true" else _fails(condition)]
    if isinstance(parent, exp.Coalesce) and key == "expressions":
        return [_is_null(value) for value in (parent.this, *parent.expressions[: child.index])]
    if isinstance(parent, exp.Nvl2) and key in ("true", "false"):
        null = _is_null(parent.this)
        return [null if key == "false" else exp.not_(null)]
    if isinstance(parent, exp.And | exp.Or) and key == "expression":
        decided = parent.this.copy() if isinstance(parent, exp.Or) else exp.not_(parent.this.copy())
        return [_fails(decided)]
    return []


def _condition(case: exp.Case, branch: exp.If) -> exp.Expr:
    from sqlglot import exp

    if case.this is None:
        return branch.this.copy()
    return exp.EQ(this=exp.paren(case.this.copy()), expression=exp.paren(branch.this.copy()))


def _holds(condition: exp.Expr) -> exp.Expr:
    from sqlglot import exp

    return exp.Coalesce(this=exp.paren(condition), expressions=[exp.false()])


def _fails(condition: exp.Expr) -> exp.Expr:
    from sqlglot import exp

    return exp.not_(_holds(condition))


def _is_null(value: exp.Expr) -> exp.Expr:
    from sqlglot import exp

    return exp.paren(exp.Is(this=exp.paren(value.copy()), expression=exp.null()))
