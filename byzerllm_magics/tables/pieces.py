"""The parts of an expression that hold no call of a model: they are evaluated once, before the first call is made."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot import exp

Calls = Callable[["exp.Expr"], Collection["exp.Expr"]]


def without_pieces(expression: exp.Expr, calls: Calls, pieces: list[exp.Expr]) -> exp.Expr:
    """Return an expression with a column ``__cN`` for each of its largest parts that hold no call.

    Args:
        expression: It is not changed.
        calls: Returns the calls inside an expression.
        pieces: The parts so far; the N-th is what ``__cN`` stands for. New ones are added.
    """
    from sqlglot import exp

    def replaced(node: exp.Expr) -> exp.Expr:
        if not _is_value(node) or calls(node):
            for child in list(node.iter_expressions()):
                new = replaced(child)
                if new is not child:
                    child.replace(new)
            return node
        if _is_constant(node):
            return node
        if node not in pieces:
            pieces.append(node.copy())
        return exp.column(f"__c{pieces.index(node)}")

    return replaced(expression.copy())


def _is_value(node: exp.Expr) -> bool:
    """Whether a part has a value by itself.

    A branch of `case`, a field of a struct and the lists of keys and values that `map` is made of have none: they are
    how their operator is written. What names a parameter of a lambda has one inside it alone.
    """
    from sqlglot import exp

    if not isinstance(node, exp.Condition | exp.Subquery) or isinstance(node, exp.PropertyEQ | exp.Kwarg):
        return False
    parent = node.parent
    if isinstance(node, exp.If) and isinstance(parent, exp.Case):
        return False
    if isinstance(node, exp.Array) and isinstance(parent, exp.VarMap | exp.Map):
        return False
    if isinstance(parent, exp.In) and node.arg_key == "query":
        return False
    around = node.find_ancestor(exp.Lambda)
    bound: set[str] = set()
    while around is not None:
        bound |= {parameter.name for parameter in around.expressions}
        around = around.find_ancestor(exp.Lambda)
    return not (bound and any(name.name in bound for name in node.find_all(exp.Identifier)))


def _is_constant(node: exp.Expr) -> bool:
    """Whether a part is written as a value: what it stands in may want it so (a format, a unit, a type)."""
    from sqlglot import exp

    inner = node.this if isinstance(node, exp.Neg | exp.Paren) else node
    return isinstance(inner, exp.Literal | exp.Null | exp.Boolean | exp.Star | exp.Placeholder)
