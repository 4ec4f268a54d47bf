"""What Spark means by operators, casts and literals where DuckDB means something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sqlglot import exp

from .spark_functions import check_count, refusal, translated
from .sql_error import SqlError
from .sql_templates import applied, filled

if TYPE_CHECKING:
    import pyarrow as pa

Types = Mapping[str, "pa.DataType"]
"""Columns of the tables by name, in lower case."""

_LISTS = (exp.Array, exp.ArrayAgg, exp.ArrayUniqueAgg, exp.ArrayConcat, exp.ArraySort, exp.ArrayFilter, exp.Transform)
_AGGREGATE_CLAUSES = (exp.Filter, exp.Window, exp.WithinGroup)


def rewritten(node: exp.Expression, types: Types) -> exp.Expression:
    """Return what stands for a node in DuckDB; its parts have been rewritten already.

    Raises:
        SqlError: a function is refused.
    """
    if isinstance(node, exp.Anonymous):
        return _function(node, types)
    rule = _RULES.get(type(node))
    return rule(node, types) if rule else node


def is_map(node: exp.Expression, types: Types) -> bool:
    """Whether an expression is known to be a map: by its form, or as a column of a table."""
    import pyarrow as pa

    if isinstance(node, exp.Column):
        kind = types.get(node.name.lower())
        return kind is not None and pa.types.is_map(kind)
    if isinstance(node, exp.Anonymous):
        return node.name.lower() in ("map_concat", "map_from_entries")
    return isinstance(node, exp.Map | exp.VarMap | exp.MapFromEntries)


def _is_list(node: exp.Expression, types: Types) -> bool:
    import pyarrow as pa

    if isinstance(node, exp.Column):
        kind = types.get(node.name.lower())
        return kind is not None and (pa.types.is_list(kind) or pa.types.is_large_list(kind))
    return isinstance(node, _LISTS)


def _function(node: exp.Anonymous, types: Types) -> exp.Expression:
    name, arguments = node.name.lower(), node.expressions
    if name in ("size", "cardinality", "reverse"):
        check_count(name, len(arguments))
    if name in ("size", "cardinality"):
        length = "cardinality" if is_map(arguments[0], types) else "len"
        return filled(f"coalesce({length}(:a), -1)", *arguments)  # Spark's size(NULL) is -1
    if name == "reverse":
        return filled("list_reverse(:a)" if _is_list(arguments[0], types) else "reverse(:a)", *arguments)
    return translated(name, arguments) or node


def _literal(node: exp.Literal, _types: Types) -> exp.Expression:
    """Make a number with a point a double, as Python does: DuckDB's and Spark's is a decimal of so many digits."""
    text, parent = str(node.this), node.parent
    if node.is_string or "." not in text or "e" in text.lower() or isinstance(parent, exp.TableSample):
        return node
    exact = isinstance(parent, exp.Cast) and parent.to.is_type("decimal")
    return node if exact else exp.Literal.number(f"{text}e0")


def _cast(node: exp.Cast, types: Types) -> exp.Expression:
    """Give NULL for what cannot be cast, and cut fractions off where DuckDB would round; times have no zone.

    A decimal of no digits that are said has Spark's ten.
    """
    import pyarrow as pa

    column = types.get(node.this.name.lower()) if isinstance(node.this, exp.Column) else None
    whole = (column is not None and pa.types.is_integer(column)) or node.this.is_int
    if node.is_type("tinyint", "smallint", "int") and not whole:
        inner = filled("trunc(try_cast(:a as double))", node.this)
    elif node.is_type("bigint") and not whole:
        inner = filled("trunc(try_cast(:a as decimal(38, 6)))", node.this)
    else:
        inner = node.this
    kind = node.to
    if node.is_type("timestamptz", "timestampltz"):
        kind = exp.DataType.build("timestamp")
    elif kind.is_type("decimal") and not kind.expressions:
        kind = exp.DataType.build("decimal(10, 0)")
    return exp.TryCast(this=inner, to=kind)


def _now(_node: exp.Expression, _types: Types) -> exp.Expression:
    """Give the local time without its zone, as all times are here."""
    return filled("cast(now() as timestamp)")


def _element(node: exp.Bracket, types: Types) -> exp.Expression:
    """Count elements from 0 where sqlglot, which shifts literals, cannot know what the index is."""
    [key, *others] = node.expressions
    if others or isinstance(key, exp.Slice) or (isinstance(key, exp.Literal) and key.is_string):
        return node
    if is_map(node.this, types):
        return filled("list_extract(map_extract(:a, :b), 1)", node.this, key)
    return node if key.is_int else filled("list_extract(:a, :b + 1)", node.this, key)


def _safe_divisor(node: exp.Expression, _types: Types) -> exp.Expression:
    """Give NULL for a division by zero."""
    divisor = node.expression
    if not (isinstance(divisor, exp.Literal) and str(divisor.this).strip("0.e")):
        node.set("expression", filled("nullif(:a, 0)", divisor))
    return node


def _remainder(node: exp.Expression, types: Types) -> exp.Expression:
    return _safe_divisor(_arithmetic(node, types), types)


def _arithmetic(node: exp.Expression, types: Types) -> exp.Expression:
    """Take a number in quotes as a double; DuckDB would read it as whatever it stands beside."""
    for quoted, other in ((node.this, node.expression), (node.expression, node.this)):
        if _is_text(quoted) and (_is_number(other, types) or _is_text(other)):
            quoted.replace(filled("try_cast(:a as double)", quoted.copy()))
    return node


def _comparison(node: exp.Expression, types: Types) -> exp.Expression:
    """Take what is in quotes as the number that it is compared with, NULL if it is none; DuckDB would round it."""
    for quoted, other in ((node.this, node.expression), (node.expression, node.this)):
        if _is_text(quoted) and not quoted.name.isdecimal() and _is_number(other, types):
            quoted.replace(filled("try_cast(:a as double)", quoted.copy()))
    return node


def _is_text(node: exp.Expression) -> bool:
    return isinstance(node, exp.Literal) and bool(node.is_string)


def _is_number(node: exp.Expression, types: Types) -> bool:
    """Whether an expression is known to be a number: by its form, or as a column of a table."""
    import pyarrow as pa

    if isinstance(node, exp.Column):
        kind = types.get(node.name.lower())
        return kind is not None and bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
    return isinstance(node, exp.Literal) and not node.is_string


def _like(node: exp.Expression, _types: Types) -> exp.Expression:
    r"""Let ``\`` take the meaning of ``%`` and ``_`` away."""
    if isinstance(node.parent, exp.Escape) or "\\" not in node.expression.name:
        return node
    return exp.Escape(this=node, expression=exp.Literal.string("\\"))


def _substring(node: exp.Substring, _types: Types) -> exp.Expression:
    """Count the first character as 1 and as 0."""
    start = node.args.get("start")
    if start is not None and not (isinstance(start, exp.Literal) and start.name != "0"):
        zero = isinstance(start, exp.Literal)
        node.set("start", exp.Literal.number(1) if zero else filled("case when :a = 0 then 1 else :a end", start))
    return node


def _whole_number(node: exp.Expression, _types: Types) -> exp.Expression:
    """Round up or down to a BIGINT."""
    return node if node.args.get("decimals") else exp.cast(node, "bigint", copy=False)


def _logarithm(node: exp.Expression, _types: Types) -> exp.Expression:
    """Give NULL where there is no logarithm."""
    place = "expression" if node.args.get("expression") else "this"
    node.set(place, filled("case when :a > 0 then :a end", node.args[place]))
    return node


def _all_text_if_one_is(values: Sequence[exp.Expression]) -> list[exp.Expression]:
    """Cast values to text if a string literal is among them; DuckDB would make the literal what the others are."""
    texts = [isinstance(value, exp.Literal) and value.is_string for value in values]
    if not any(texts) or all(texts):
        return list(values)
    return [value if text else exp.cast(value, "text") for value, text in zip(values, texts, strict=True)]


def _of_one_type(node: exp.Expression, _types: Types) -> exp.Expression:
    node.set("expressions", _all_text_if_one_is(node.expressions))
    return node


def _coalesce(node: exp.Expression, _types: Types) -> exp.Expression:
    first, *others = _all_text_if_one_is([node.this, *node.expressions])
    node.set("this", first)
    node.set("expressions", others)
    return node


def _branches(node: exp.Case, _types: Types) -> exp.Expression:
    default = node.args.get("default")
    places = [(branch, "true") for branch in node.args["ifs"]] + ([(node, "default")] if default else [])
    for (holder, place), value in zip(places, _all_text_if_one_is([h.args[p] for h, p in places]), strict=True):
        holder.set(place, value)
    return node


def _if(node: exp.If, _types: Types) -> exp.Expression:
    places = [place for place in ("true", "false") if node.args.get(place)]
    if not isinstance(node.parent, exp.Case):
        for place, value in zip(places, _all_text_if_one_is([node.args[p] for p in places]), strict=True):
            node.set(place, value)
    return node


def _date(node: exp.Expression, _types: Types) -> exp.Expression:
    """Give NULL for what is no date."""
    return filled("try_cast(:a as date)", node.this)


def _of_date(node: exp.Expression, _types: Types) -> exp.Expression:
    """Take a date, NULL where there is none."""
    node.set("this", filled("try_cast(:a as date)", node.this))
    if isinstance(node, exp.MonthsBetween):
        node.set("expression", filled("try_cast(:a as date)", node.expression))
    return node


def _part_of_time(node: exp.Extract, _types: Types) -> exp.Expression:
    """Take a time, NULL where there is none."""
    node.set("expression", filled("try_cast(:a as timestamp)", node.expression))
    return node


def _exists(node: exp.Exists, _types: Types) -> exp.Expression:
    """Tell the function of an array and a lambda from the predicate."""
    condition = node.args.get("expression")
    return filled("len(list_filter(:a, :b)) > 0", node.this, condition) if condition else node


def _transform(node: exp.Transform, _types: Types) -> exp.Expression:
    """Count elements from 0."""
    function = node.expression
    if isinstance(function, exp.Lambda) and len(function.expressions) == 2:
        element, index = function.expressions
        body = applied(function, [element, exp.paren(exp.Sub(this=index.copy(), expression=exp.Literal.number(1)))])
        node.set("expression", exp.Lambda(this=body, expressions=[element, index]))
    return node


def _reduce(node: exp.Reduce, _types: Types) -> exp.Expression:
    """Put the result into the last function, if there is one."""
    finish = node.args.get("finish")
    if not isinstance(finish, exp.Lambda):
        return node
    node.set("finish", None)
    return applied(finish, [node.copy()])


def _never_null(node: exp.Expression, _types: Types) -> exp.Expression:
    """Give an empty array where there was nothing to collect, around all that belongs to the aggregate."""
    if isinstance(node.parent, _AGGREGATE_CLAUSES) and node.arg_key == "this":
        return node
    inner = node
    while isinstance(inner, _AGGREGATE_CLAUSES):
        inner = inner.this
    if not isinstance(inner, exp.ArrayAgg | exp.ArrayUniqueAgg):
        return node
    return exp.Coalesce(this=node, expressions=[exp.Array(expressions=[])])


def _percentile(node: exp.Quantile | exp.ApproxQuantile, _types: Types) -> exp.Expression:
    """Interpolate between the two nearest values; percentile_approx gives one that is there."""
    name = "quantile_disc" if isinstance(node, exp.ApproxQuantile) else "quantile_cont"
    return exp.Anonymous(this=name, expressions=[node.this, node.args["quantile"]])


def _series(node: exp.GenerateSeries, types: Types) -> exp.Expression:
    """Give dates between dates; DuckDB gives times."""
    start, end, step = (node.args.get(part) for part in ("start", "end", "step"))
    if not (_is_date(start, types) and _is_date(end, types)):
        return node
    step = step or exp.Interval(this=exp.Literal.string("1"), unit=exp.var("day"))
    return filled("cast(generate_series(:a, :b, :c) as date[])", start, end, step)


def _is_date(node: exp.Expression | None, types: Types) -> bool:
    """Whether an expression is known to be a date: by its form, or as a column of a table."""
    import pyarrow as pa

    if isinstance(node, exp.Column):
        kind = types.get(node.name.lower())
        return kind is not None and bool(pa.types.is_date(kind))
    if isinstance(node, exp.Paren | exp.Add | exp.Sub):
        return _is_date(node.this, types)
    return isinstance(node, exp.CurrentDate | exp.DateFromParts) or (
        isinstance(node, exp.Cast) and bool(node.to.is_type("date"))
    )


def _joined(node: exp.GroupConcat, _types: Types) -> exp.Expression:
    """Put nothing between the texts where nothing is said."""
    if not node.args.get("separator"):
        node.set("separator", exp.Literal.string(""))
    return node


def _user(_node: exp.Expression, _types: Types) -> exp.Expression:
    raise refusal("current_user")


def _sample(node: exp.TableSample, _types: Types) -> exp.Expression:
    """Choose row by row; DuckDB would take or leave thousands of rows at a time."""
    if node.args.get("bucket_numerator"):
        raise SqlError("tablesample takes a part or a number of rows here", do="write (10 percent) or (100 rows)")
    node.set("method", exp.var("reservoir" if node.args.get("size") else "bernoulli"))
    return node


def _random(_node: exp.Rand, _types: Types) -> exp.Expression:
    """Leave the seed out: it is set before the query runs."""
    return exp.Rand()


_RULES: Mapping[type[exp.Expression], Callable[..., exp.Expression]] = {
    **dict.fromkeys((exp.Add, exp.Sub, exp.Mul, exp.Div), _arithmetic),
    **dict.fromkeys((exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ), _comparison),
    exp.ApproxQuantile: _percentile,
    exp.Array: _of_one_type,
    exp.ArrayAgg: _never_null,
    exp.ArrayUniqueAgg: _never_null,
    exp.Bracket: _element,
    exp.Case: _branches,
    exp.Cast: _cast,
    exp.Ceil: _whole_number,
    exp.Coalesce: _coalesce,
    exp.CurrentTimestamp: _now,
    exp.CurrentUser: _user,
    exp.Exists: _exists,
    exp.Extract: _part_of_time,
    exp.Filter: _never_null,
    exp.Floor: _whole_number,
    exp.GenerateSeries: _series,
    exp.GroupConcat: _joined,
    exp.If: _if,
    exp.ILike: _like,
    exp.IntDiv: _safe_divisor,
    exp.Like: _like,
    exp.Literal: _literal,
    exp.LastDay: _of_date,
    exp.Ln: _logarithm,
    exp.Log: _logarithm,
    exp.Mod: _remainder,
    exp.MonthsBetween: _of_date,
    exp.NextDay: _of_date,
    exp.Quantile: _percentile,
    exp.Quarter: _of_date,
    exp.Rand: _random,
    exp.Reduce: _reduce,
    exp.SessionUser: _user,
    exp.Substring: _substring,
    exp.TableSample: _sample,
    exp.Transform: _transform,
    exp.TryCast: _cast,
    exp.TsOrDsToDate: _date,
    exp.Window: _never_null,
}
