"""Spark's implicit casts, ANSI mode off: ``price + 1`` and ``lpad(id, 4, '0')`` where a text or a number is meant.

DuckDB refuses most of them, and then the query is run again with the casts written out. What Spark does is in its
`TypeCoercion`: arithmetic and sums of texts are doubles, functions of text take anything as text, a text that is
compared with a number or a date is read as one (NULL where it is none), and where values of both kinds are listed, all
are texts. One difference on purpose: '1.5' is more than 1, where Spark cuts the fraction off as the 1 has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.scope import traverse_scope

from .spark import SPARK

if TYPE_CHECKING:
    import pyarrow as pa

    from .table import Table

Types = dict[str, exp.DataType]
"""Types of columns by name, in lower case."""

_TEXT = exp.DataType.TEXT_TYPES
_NUMBER = exp.DataType.NUMERIC_TYPES
_WHOLE = exp.DataType.INTEGER_TYPES
_TIME = exp.DataType.TEMPORAL_TYPES
_NO_TEXT = _NUMBER | _TIME | {exp.DataType.Type.BOOLEAN}
_EXACT = "decimal(38, 6)"
"""For whole numbers as texts: a double would take neighbours beyond 2⁵³ for one."""

_ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod)
_COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ)
_OF_NUMBERS = (
    exp.Neg, exp.Sum, exp.Avg, exp.Stddev, exp.StddevPop, exp.StddevSamp, exp.Variance, exp.VariancePop, exp.Median,
    exp.Quantile, exp.ApproxQuantile, exp.Abs, exp.Round, exp.Ceil, exp.Floor, exp.Sqrt, exp.Exp, exp.Ln, exp.Log,
    exp.Pow,
)  # fmt: skip
_OF_TEXTS: Mapping[type[exp.Expression], tuple[str, ...]] = {
    **dict.fromkeys(
        (exp.Upper, exp.Lower, exp.Length, exp.Trim, exp.Substring, exp.Left, exp.Right, exp.Initcap, exp.Repeat,
         exp.MD5, exp.SHA2, exp.Ascii, exp.RegexpExtract, exp.RegexpExtractAll, exp.Unicode),
        ("this",),
    ),
    **dict.fromkeys(
        (exp.Like, exp.ILike, exp.RegexpLike, exp.StartsWith, exp.EndsWith, exp.Contains, exp.Levenshtein),
        ("this", "expression"),
    ),
    exp.Pad: ("this", "fill_pattern"),
    exp.StrPosition: ("this", "substr"),
    exp.Translate: ("this", "from_", "to"),
}  # fmt: skip
_NAMED_OF_TEXTS = ("regexp_replace", "replace", "split", "substring_index", "find_in_set", "reverse")
_NAMED_OF_NUMBERS = ("pmod", "mod", "sign", "signum", "isnan", "format_number")


def coerced(query: exp.Query, tables: Mapping[str, Table]) -> bool:
    """Write Spark's casts into a query; return whether there were any.

    Args:
        query: In Spark's words; it is changed.
        tables: What it reads, by the names it has there.
    """
    try:
        _annotate(query, tables)
    except SqlglotError:  # what DuckDB says of such a query is clearer
        return False
    casts = 0
    for node in reversed(list(query.walk())):
        casts += _casts(node)
    return casts > 0


def _annotate(query: exp.Query, tables: Mapping[str, Table]) -> None:
    """Give each expression its type, as far as it is known: the innermost queries first."""
    of_tables = {name: _types_of(table) for name, table in tables.items()}
    of_scopes: dict[int, Types] = {}
    for scope in traverse_scope(query):
        sources = [
            of_tables.get(source.name, {}) if isinstance(source, exp.Table) else of_scopes.get(id(source), {})
            for source in scope.sources.values()
        ]
        by_alias = dict(zip(scope.sources, sources, strict=True))
        around = scope.parent
        while around is not None:  # a query inside a condition sees the tables around it
            outer = {n: of_tables.get(s.name, {}) for n, s in around.sources.items() if isinstance(s, exp.Table)}
            by_alias, around = outer | by_alias, around.parent
        for column in scope.find_all(exp.Column):
            within = [by_alias.get(column.table, {})] if column.table else sources
            kinds = [types[column.name.lower()] for types in within if column.name.lower() in types]
            if len(kinds) == 1 and not _is_alias(column, scope.expression):
                column.type = kinds[0].copy()
        annotate_types(scope.expression, dialect=SPARK, overwrite_types=False)
        of_scopes[id(scope)] = _types_of_selected(scope.expression, sources)


def _types_of(table: Table) -> Types:
    return {field.name.lower(): exp.DataType.build(_kind(field.type), dialect="spark") for field in table.schema}


def _types_of_selected(query: exp.Expression, sources: Sequence[Types]) -> Types:
    """Return the types of a query's columns."""
    types: Types = {}
    for projection in query.selects if isinstance(query, exp.Query) else ():
        if projection.is_star:
            for source in sources:
                types |= source
        elif projection.type is not None:
            types[projection.alias_or_name.lower()] = projection.type
    return types


def _is_alias(column: exp.Column, select: exp.Expression) -> bool:
    """Whether a column in `order by` and the like names what the `select` makes."""
    clause = column.find_ancestor(exp.Order, exp.Having, exp.Group, exp.Select)
    if clause is None or isinstance(clause, exp.Select) or not isinstance(select, exp.Select):
        return False
    return any(isinstance(p, exp.Alias) and p.alias.lower() == column.name.lower() for p in select.expressions)


def _kind(kind: pa.DataType) -> str:
    """Return an Arrow type in Spark's words; what is never cast is binary."""
    import pyarrow as pa

    known: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
        (pa.types.is_string, "string"),
        (pa.types.is_large_string, "string"),
        (pa.types.is_boolean, "boolean"),
        (pa.types.is_integer, "bigint"),
        (pa.types.is_floating, "double"),
        (pa.types.is_decimal, "decimal(38, 6)"),
        (pa.types.is_date, "date"),
        (pa.types.is_timestamp, "timestamp"),
    )
    return next((name for is_so, name in known if is_so(kind)), "binary")


# -- rules: each casts what its node is made of, and returns how many casts it wrote ------------------------


def _casts(node: exp.Expression) -> int:
    """Write the casts that a node makes, and return how many they are."""
    if isinstance(node, exp.Anonymous):
        if node.name.lower() in _NAMED_OF_TEXTS:
            return _cast_all(node.expressions, _NO_TEXT, "string")
        return _cast_all(node.expressions[:2], _TEXT, "double") if node.name.lower() in _NAMED_OF_NUMBERS else 0
    rule = _RULES.get(type(node))
    return rule(node) if rule else 0


def _of_texts(node: exp.Expression) -> int:
    places = (node.args.get(place) for place in _OF_TEXTS[type(node)])
    return _cast_all([place for place in places if place is not None], _NO_TEXT, "string")


def _of_numbers(node: exp.Expression) -> int:
    return _cast_all([node.this], _TEXT, "double") and _typed(node, "double")


def _whole_division(node: exp.Expression) -> int:
    return _cast_all([node.this, node.expression], _TEXT, "bigint")


def _comparison(node: exp.Expression) -> int:
    return _compared(node.this, node.expression)


def _list(node: exp.Expression) -> int:
    return _one_kind([node.this, *node.expressions])


def _arithmetic(node: exp.Expression) -> int:
    sides = [node.this, node.expression]
    if any(side.is_type(*_TIME, "interval") or isinstance(side, exp.Interval) for side in sides):
        return 0
    return _cast_all(sides, _TEXT, "double") and _typed(node, "double")


def _compared(one: exp.Expression, other: exp.Expression) -> int:
    """Cast a text to what it is compared with."""
    for text, with_ in ((one, other), (other, one)):
        if not text.is_type(*_TEXT):
            continue
        if with_.is_type(*_WHOLE):
            return _cast(text, _EXACT)
        if with_.is_type(*_NUMBER):
            return _cast(text, "double")
        if with_.is_type(*_TIME):
            return _cast(text, "date" if with_.is_type("date") else "timestamp")
        if with_.is_type("boolean"):
            return _cast(text, "boolean")
    return 0


def _between(node: exp.Expression) -> int:
    casts = _compared(node.this, node.args["low"])
    return casts + _compared(node.this, node.args["high"])


def _branches(node: exp.Expression) -> int:
    if isinstance(node, exp.If):
        if isinstance(node.parent, exp.Case):
            return 0
        values = [node.args.get("true"), node.args.get("false")]
    else:
        values = [*(branch.args["true"] for branch in node.args["ifs"]), node.args.get("default")]
    casts = _one_kind([value for value in values if value is not None])
    if isinstance(node, exp.Case) and node.this is not None:
        casts += sum(_compared(node.this, branch.this) for branch in node.args["ifs"])
    return casts


def _one_kind(values: Sequence[exp.Expression]) -> int:
    """Cast all values to text if some are texts and some are none."""
    if not any(value.is_type(*_TEXT) for value in values):
        return 0
    return _cast_all(values, _NUMBER, "string")


def _cast_all(
    values: Sequence[exp.Expression], kinds: frozenset[exp.DataType.Type] | set[exp.DataType.Type], to: str
) -> int:
    return sum(_cast(value, to) for value in values if value.is_type(*kinds))


def _cast(value: exp.Expression, to: str) -> int:
    kind = exp.DataType.build(to, dialect="spark")
    if value.is_type("null"):
        return 0
    parent, key, index = value.parent, value.arg_key, value.index
    assert parent is not None, "it is part of an operator"
    assert key is not None, "it is part of an operator"
    new = exp.TryCast(this=value, to=kind)
    _typed(new, to)
    parent.set(key, new, index=index)
    return 1


def _typed(node: exp.Expression, kind: str) -> int:
    node.type = exp.DataType.build(kind, dialect="spark")
    return 1


_RULES: Mapping[type[exp.Expression], Callable[[exp.Expression], int]] = {
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    **dict.fromkeys(_COMPARISONS, _comparison),
    **dict.fromkeys(_OF_NUMBERS, _of_numbers),
    **dict.fromkeys(_OF_TEXTS, _of_texts),
    **dict.fromkeys((exp.In, exp.Coalesce, exp.Greatest, exp.Least), _list),
    exp.Between: _between,
    exp.Case: _branches,
    exp.If: _branches,
    exp.IntDiv: _whole_division,
}
