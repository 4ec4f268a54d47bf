"""Spark's functions in DuckDB's words: those that sqlglot does not know or translates to something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from .spark_patterns import re2_replacement, strftime_pattern
from .sql_error import SqlError

_TEMPLATES: Mapping[str, str] = {
    # text
    "substring_index": "case when :c > 0 then array_to_string(list_slice(str_split(:a, :b), 1, :c), :b)"
    " else array_to_string(list_slice(str_split(:a, :b), :c, -1), :b) end",
    "replace/2": "replace(:a, :b, '')",
    "find_in_set": "coalesce(list_position(str_split(:b, ','), :a), 0)",
    "isnull": ":a is null",
    "isnotnull": ":a is not null",
    # numbers
    "pmod": "((:a % nullif(:b, 0)) + :b) % nullif(:b, 0)",
    "mod": ":a % nullif(:b, 0)",
    "isnan": "coalesce(isnan(:a), false)",
    "sign": "cast(sign(:a) as double)",
    "signum": "cast(sign(:a) as double)",
    # arrays and maps
    "array_distinct": "list_filter(:a, lambda byzer_v, byzer_i : list_position(:a, byzer_v) = byzer_i)",
    "array_union": "list_filter(list_concat(:a, :b),"
    " lambda byzer_v, byzer_i : list_position(list_concat(:a, :b), byzer_v) = byzer_i)",
    "array_position": "case when :a is not null then coalesce(list_position(:a, :b), 0) end",
    "array_repeat": "repeat([:a], :b)",
    "arrays_overlap": "list_has_any(:a, :b)",
    "forall": "len(list_filter(:a, :b)) = len(:a)",
    "slice": "list_slice(list_slice(:a, :b, -1), 1, :c)",
    "map_contains_key": "map_contains(:a, :b)",
    # JSON; what is no JSON gives NULL, not an error
    "get_json_object": "case when json_valid(:a) then json_extract_string(:a, :b) end",
    "to_json": "case when :a is not null then cast(json_merge_patch('{}', to_json(:a)) as varchar) end",
    # aggregates
    "max_by": "arg_max_null(:a, :b)",
    "min_by": "arg_min_null(:a, :b)",
    "some": "bool_or(:a)",
    "every": "bool_and(:a)",
    # dates and times; what is none gives NULL, not an error
    "to_date/1": "try_cast(:a as date)",
    "to_timestamp/1": "try_cast(:a as timestamp)",
    "date_add": "try_cast(:a as date) + cast(:b as integer)",
    "date_sub": "try_cast(:a as date) - cast(:b as integer)",
    "add_months": "cast(try_cast(:a as date) + to_months(cast(:b as integer)) as date)",
    "dayofweek": "dayofweek(try_cast(:a as date)) + 1",
    "weekday": "isodow(try_cast(:a as date)) - 1",
    "hour": "hour(try_cast(:a as timestamp))",
    "minute": "minute(try_cast(:a as timestamp))",
    "second": "second(try_cast(:a as timestamp))",
    "now": "cast(now() as timestamp)",
    "unix_timestamp/0": "cast(epoch(now()) as bigint)",
    "unix_timestamp/1": "cast(epoch(cast(try_cast(:a as timestamp) as timestamptz)) as bigint)",
    "to_unix_timestamp/1": "cast(epoch(cast(try_cast(:a as timestamp) as timestamptz)) as bigint)",
    "from_unixtime/1": "strftime(to_timestamp(:a), '%Y-%m-%d %H:%M:%S')",
    # rows
    "monotonically_increasing_id": "row_number() over () - 1",
}
"""By name, or name/number of arguments; ``:a``, ``:b``, … are the arguments in order."""

_REFUSED: Mapping[str, str] = {
    "hash": "it would give other numbers than Spark's; md5(cast(x as string)) gives the same everywhere",
    "xxhash64": "it would give other numbers than Spark's; md5(cast(x as string)) gives the same everywhere",
    "input_file_name": "load text gives a column file",
    "json_tuple": "use get_json_object(x, '$.key') for each key",
    "bround": "use round",
    "conv": "use hex, unhex or bin",
    "str_to_map": "use split and map",
    "map_filter": "use filter(map_entries(m), e -> e.value > 1) and map_from_entries",
    "transform_values": "use transform(map_entries(m), e -> struct(e.key, e.value + 1)) and map_from_entries",
    "transform_keys": "use transform(map_entries(m), e -> struct(e.key, e.value)) and map_from_entries",
    "java_method": "no code is run here",
    "reflect": "no code is run here",
}

_UNITS = {"mm": "month", "mon": "month", "yyyy": "year", "yy": "year", "dd": "day"}


def translated(name: str, arguments: Sequence[exp.Expression]) -> exp.Expression | None:
    """Return a function's call in DuckDB's words; None: it is written so already.

    Raises:
        SqlError: the function is refused by name; a pattern that has to be a string is none.
    """
    if name in _REFUSED:
        raise SqlError(f"{name} does not exist here", do=_REFUSED[name])
    if write := _WRITTEN.get(name):
        return write(arguments)
    template = _TEMPLATES.get(f"{name}/{len(arguments)}") or _TEMPLATES.get(name)
    return template and filled(template, *arguments)


def filled(template: str, *arguments: exp.Expression) -> exp.Expression:
    """Return DuckDB's expression with arguments in the places of ``:a``, ``:b``, …"""
    values = {letter: _enclosed(argument) for letter, argument in zip("abcdefgh", arguments, strict=False)}
    result = exp.replace_placeholders(_parsed(template).copy(), **values)
    if result.find(exp.Placeholder):
        raise SqlError("an argument is missing")
    return _enclosed(result)


def _enclosed(node: exp.Expression) -> exp.Expression:
    """Return an expression so that it binds as one whatever stands beside it."""
    loose = isinstance(node, exp.Binary | exp.Unary | exp.Predicate) and not isinstance(node, exp.Paren)
    return exp.paren(node, copy=False) if loose else node


@cache
def _parsed(template: str) -> exp.Expression:
    return sqlglot.parse_one(template, dialect="duckdb")


# -- functions with a pattern that is translated ----------------------------------------------------------


def _text(node: exp.Expression, what: str) -> str:
    if not (isinstance(node, exp.Literal) and node.is_string):
        raise SqlError(f"the {what} has to be a string here", do="write it as one: '…'")
    return str(node.this)


def _formatted(template: str) -> Callable[[Sequence[exp.Expression]], exp.Expression]:
    """Return what writes a function of a value and a date pattern."""

    def write(arguments: Sequence[exp.Expression]) -> exp.Expression:
        value, pattern = arguments
        return filled(template, value, exp.Literal.string(strftime_pattern(_text(pattern, "date pattern"))))

    return write


def _with_default(name: str, template: str) -> Callable[[Sequence[exp.Expression]], exp.Expression]:
    """Return what writes a function whose date pattern may be left out."""
    write = _formatted(template)

    def either(arguments: Sequence[exp.Expression]) -> exp.Expression:
        if len(arguments) == 2:
            return write(arguments)
        return filled(_TEMPLATES[f"{name}/{len(arguments)}"], *arguments)

    return either


def _trunc(arguments: Sequence[exp.Expression]) -> exp.Expression:
    value, unit = arguments
    return filled("cast(date_trunc(:b, try_cast(:a as date)) as date)", value, _unit(unit))


def _date_trunc(arguments: Sequence[exp.Expression]) -> exp.Expression:
    unit, value = arguments
    return filled("date_trunc(:b, try_cast(:a as timestamp))", value, _unit(unit))


def _unit(node: exp.Expression) -> exp.Expression:
    unit = _text(node, "unit").lower()
    return exp.Literal.string(_UNITS.get(unit, unit))


def _regexp_replace(arguments: Sequence[exp.Expression]) -> exp.Expression:
    value, pattern, replacement, *position = arguments
    if position:
        raise SqlError("regexp_replace takes three arguments here", do="leave the position out")
    if isinstance(replacement, exp.Literal):
        replacement = exp.Literal.string(re2_replacement(str(replacement.this)))
    return exp.Anonymous(this="regexp_replace", expressions=[value, pattern, replacement, exp.Literal.string("g")])


def _printf(arguments: Sequence[exp.Expression]) -> exp.Expression:
    return exp.Anonymous(this="printf", expressions=list(arguments))


def _format_number(arguments: Sequence[exp.Expression]) -> exp.Expression:
    value, digits = arguments
    if not (isinstance(digits, exp.Literal) and str(digits.this).isdecimal()):
        raise SqlError("format_number takes a number of digits here", do="write e.g. format_number(x, 2)")
    return filled(f"format('{{:,.{digits.this}f}}', cast(:a as double))", value)


def _split(arguments: Sequence[exp.Expression]) -> exp.Expression:
    if len(arguments) > 2 and arguments[2].sql() != "-1":
        raise SqlError("split takes no limit here", do="slice(split(x, ','), 1, n) takes the first n parts")
    return filled("str_split_regex(:a, :b)", *arguments[:2])


def _from_json(arguments: Sequence[exp.Expression]) -> exp.Expression:
    value, schema = arguments[:2]
    text = _text(schema, "schema")
    for written in (text, f"struct<{text}>"):
        try:
            structure = json.dumps(_structure(exp.DataType.build(written, dialect="spark")))
        except (SqlglotError, ValueError, KeyError, AttributeError):
            continue
        template = "case when json_valid(:a) then json_transform(:a, :b) end"
        return filled(template, value, exp.Literal.string(structure))
    raise SqlError(f"the schema {text!r} cannot be read", do="write e.g. 'name string, tags array<string>'")


def _structure(kind: exp.DataType) -> object:
    """Return a type as DuckDB's JSON functions take it: {"name": "VARCHAR", "tags": ["VARCHAR"]}."""
    inner = kind.expressions
    if kind.is_type("unknown", "userdefined") or (kind.is_type("struct") and not inner):
        raise ValueError("no type")
    if kind.is_type("struct"):
        return {field.name: _structure(field.args["kind"]) for field in inner}
    if kind.is_type("array"):
        return [_structure(inner[0])]
    return kind.sql(dialect="duckdb")


def _zip_with(arguments: Sequence[exp.Expression]) -> exp.Expression:
    one, other, function = arguments
    if not isinstance(function, exp.Lambda) or len(function.expressions) != 2:
        raise SqlError("zip_with takes a function of two", do="write e.g. (x, y) -> x + y")
    values = [filled("byzer_z[1]"), filled("byzer_z[2]")]
    body = applied(function, values)
    pair = exp.Lambda(this=body, expressions=[exp.to_identifier("byzer_z")])
    return filled("list_transform(list_zip(:a, :b), :c)", one, other, pair)


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


_WRITTEN: Mapping[str, Callable[[Sequence[exp.Expression]], exp.Expression]] = {
    "date_format": _formatted("strftime(try_cast(:a as timestamp), :b)"),
    "to_date": _with_default("to_date", "cast(try_strptime(:a, :b) as date)"),
    "to_timestamp": _with_default("to_timestamp", "try_strptime(:a, :b)"),
    "unix_timestamp": _with_default(
        "unix_timestamp", "cast(epoch(cast(try_strptime(:a, :b) as timestamptz)) as bigint)"
    ),
    "to_unix_timestamp": _with_default(
        "to_unix_timestamp", "cast(epoch(cast(try_strptime(:a, :b) as timestamptz)) as bigint)"
    ),
    "from_unixtime": _with_default("from_unixtime", "strftime(to_timestamp(:a), :b)"),
    "trunc": _trunc,
    "date_trunc": _date_trunc,
    "regexp_replace": _regexp_replace,
    "format_string": _printf,
    "printf": _printf,
    "format_number": _format_number,
    "split": _split,
    "from_json": _from_json,
    "zip_with": _zip_with,
}
GENERATORS = (
    "explode", "explode_outer", "posexplode", "posexplode_outer", "inline", "inline_outer", "stack", "range",
)  # fmt: skip
"""Functions that make rows of values; see `spark_rows`."""

_TYPED = ("size", "cardinality", "reverse")
"""Functions whose translation hangs on the type of their argument; see `spark_operators`."""

NAMES = frozenset({key.partition("/")[0] for key in _TEMPLATES} | {*_REFUSED, *_WRITTEN, *GENERATORS, *_TYPED})
"""Functions that sqlglot has to leave as they are written."""
