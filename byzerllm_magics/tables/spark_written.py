"""Spark's functions whose translation hangs on how their arguments are written: a pattern, a unit, a lambda."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from sqlglot import exp
from sqlglot.errors import SqlglotError

from .spark_patterns import re2_replacement, strftime_pattern
from .sql_error import SqlError
from .sql_templates import applied, filled

Arguments = Sequence[exp.Expression]
Write = Callable[[Arguments], exp.Expression]

_UNITS = {"mm": "month", "mon": "month", "yyyy": "year", "yy": "year", "dd": "day"}
_ONE_TEXT = re.compile(r"(?:[^\\.$|?*+()\[\]{}^]|\\[^\w])+")
"""A regular expression that means one text alone."""

_JSON = "case when json_valid(:a) then json_extract_string(:a, :b) end"
_JSON_OF_MANY = (
    "case when json_valid(:a) then case len(json_extract(:a, :b)) when 0 then null"
    " when 1 then cast(list_extract(json_extract(:a, :b), 1) as varchar)"
    " else cast(to_json(json_extract(:a, :b)) as varchar) end end"
)
"""Several values are a JSON list, and one is that value's JSON, as in Spark."""

_PAIRS = (
    "map_from_entries(list_transform(str_split(:a, :b), lambda byzer_p : struct_pack(k := split_part(byzer_p, :c, 1),"
    " v := case when contains(byzer_p, :c) then substr(byzer_p, strpos(byzer_p, :c) + length(:c)) end)))"
)


def text(node: exp.Expression, what: str) -> str:
    """Return the text of what has to be written as one.

    Raises:
        SqlError: it is none.
    """
    if not (isinstance(node, exp.Literal) and node.is_string):
        raise SqlError(f"the {what} has to be a string here", do="write it as one: '…'")
    return str(node.this)


def _formatted(template: str, without: Mapping[int, str] | None = None) -> Write:
    """Return what writes a function of a value and a date pattern.

    Args:
        template: With a pattern.
        without: By number of arguments, where the pattern may be left out.
    """

    def write(arguments: Arguments) -> exp.Expression:
        if without and len(arguments) in without:
            return filled(without[len(arguments)], *arguments)
        value, pattern = arguments
        return filled(template, value, exp.Literal.string(strftime_pattern(text(pattern, "date pattern"))))

    return write


def _trunc(arguments: Arguments) -> exp.Expression:
    value, unit = arguments
    return filled("cast(date_trunc(:b, try_cast(:a as date)) as date)", value, _unit(unit))


def _date_trunc(arguments: Arguments) -> exp.Expression:
    unit, value = arguments
    return filled("date_trunc(:b, try_cast(:a as timestamp))", value, _unit(unit))


def _unit(node: exp.Expression) -> exp.Expression:
    unit = text(node, "unit").lower()
    return exp.Literal.string(_UNITS.get(unit, unit))


def _regexp_replace(arguments: Arguments) -> exp.Expression:
    value, pattern, replacement, *position = arguments
    if position:
        raise SqlError("regexp_replace takes three arguments here", do="leave the position out")
    if isinstance(replacement, exp.Literal):
        replacement = exp.Literal.string(re2_replacement(str(replacement.this)))
    return exp.Anonymous(this="regexp_replace", expressions=[value, pattern, replacement, exp.Literal.string("g")])


def _printf(arguments: Arguments) -> exp.Expression:
    return exp.Anonymous(this="printf", expressions=list(arguments))


def _format_number(arguments: Arguments) -> exp.Expression:
    value, digits = arguments
    if not (isinstance(digits, exp.Literal) and str(digits.this).isdecimal()):
        raise SqlError("format_number takes a number of digits here", do="write e.g. format_number(x, 2)")
    return filled(f"format('{{:,.{digits.this}f}}', cast(:a as double))", value)


def _split(arguments: Arguments) -> exp.Expression:
    value, pattern, *limit = arguments
    parts = filled("str_split_regex(:a, :b)", value, pattern)
    if not limit or (limit[0].is_int and int(limit[0].sql()) <= 0):
        return parts
    known = limit[0].is_int and isinstance(pattern, exp.Literal) and _ONE_TEXT.fullmatch(str(pattern.this))
    if not known:  # what separates the parts that stay together would have to be found again
        raise SqlError(
            "split takes a limit where its separator is one text",
            do="slice(split(x, ','), 1, n) takes the first n parts",
        )
    separator = exp.Literal.string(re.sub(r"\\(.)", r"\1", str(pattern.this)))
    return filled(
        "case when len(:a) >= :b"
        " then list_append(list_slice(:a, 1, :b - 1), array_to_string(list_slice(:a, :b, -1), :c)) else :a end",
        parts,
        limit[0],
        separator,
    )


def _get_json_object(arguments: Arguments) -> exp.Expression:
    value, path = arguments
    many = isinstance(path, exp.Literal) and "*" in str(path.this)
    return filled(_JSON_OF_MANY if many else _JSON, value, path)


def _from_json(arguments: Arguments) -> exp.Expression:
    value, schema = arguments[:2]
    declared = text(schema, "schema")
    for written in (declared, f"struct<{declared}>"):
        try:
            structure = json.dumps(_structure(exp.DataType.build(written, dialect="spark")))
        except (SqlglotError, ValueError, KeyError, AttributeError):
            continue
        template = "case when json_valid(:a) then json_transform(:a, :b) end"
        return filled(template, value, exp.Literal.string(structure))
    raise SqlError(f"the schema {declared!r} cannot be read", do="write e.g. 'name string, tags array<string>'")


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


def _zip_with(arguments: Arguments) -> exp.Expression:
    one, other, function = arguments
    if not isinstance(function, exp.Lambda) or len(function.expressions) != 2:
        raise SqlError("zip_with takes a function of two", do="write e.g. (x, y) -> x + y")
    values = [filled("byzer_z[1]"), filled("byzer_z[2]")]
    body = applied(function, values)
    pair = exp.Lambda(this=body, expressions=[exp.to_identifier("byzer_z")])
    return filled("list_transform(list_zip(:a, :b), :c)", one, other, pair)


def _arrays_zip(arguments: Arguments) -> exp.Expression:
    """Name the fields as Spark does: by the column that they come from, or else by their number."""
    names = [each.name if isinstance(each, exp.Column) else str(k) for k, each in enumerate(arguments)]
    fields = ", ".join(
        f"{exp.Literal.string(name).sql(dialect='duckdb')}: struct_extract_at(byzer_z, {k})"
        for k, name in enumerate(names, 1)
    )
    places = ", ".join(f":{letter}" for letter in "abcdefgh"[: len(arguments)])
    return filled(f"list_transform(list_zip({places}), lambda byzer_z : {{{fields}}})", *arguments)


def _str_to_map(arguments: Arguments) -> exp.Expression:
    value, *separators = arguments
    usual = [exp.Literal.string(","), exp.Literal.string(":")]
    return filled(_PAIRS, value, *separators, *usual[len(separators) :])


def _of_entries(name: str, template: str, made: str = ":c") -> Write:
    """Return what writes a function of a map and a lambda of its keys and values.

    Args:
        name: The function.
        template: Takes the map's entries as ``:a`` and a function of one entry as ``:b``.
        made: What becomes of an entry: its key is ``:a``, its value ``:b``, and what the lambda gives ``:c``.
    """

    def write(arguments: Arguments) -> exp.Expression:
        value, function = arguments
        if not isinstance(function, exp.Lambda) or len(function.expressions) != 2:
            raise SqlError(f"{name} takes a function of a key and a value", do=f"write {name}(m, (k, v) -> …)")
        entry = [filled(f"struct_extract(byzer_e, '{part}')") for part in ("key", "value")]
        body = filled(made, *entry, applied(function, entry))
        of_entry = exp.Lambda(this=body, expressions=[exp.to_identifier("byzer_e")])
        return filled(f"map_from_entries({template})", filled("map_entries(:a)", value), of_entry)

    return write


_EPOCH = "cast(epoch(cast({} as timestamptz)) as bigint)"
_PARSED_EPOCH = _EPOCH.format("try_strptime(:a, :b)")
_CAST_EPOCH = _EPOCH.format("try_cast(:a as timestamp)")

MANY = 100
"""More arguments than anyone writes."""

WRITTEN: Mapping[str, tuple[range, Write]] = {
    "date_format": (range(2, 3), _formatted("strftime(try_cast(:a as timestamp), :b)")),
    "to_date": (range(1, 3), _formatted("cast(try_strptime(:a, :b) as date)", {1: "try_cast(:a as date)"})),
    "to_timestamp": (range(1, 3), _formatted("try_strptime(:a, :b)", {1: "try_cast(:a as timestamp)"})),
    "unix_timestamp": (
        range(3),
        _formatted(_PARSED_EPOCH, {0: "cast(epoch(now()) as bigint)", 1: _CAST_EPOCH}),
    ),
    "to_unix_timestamp": (range(1, 3), _formatted(_PARSED_EPOCH, {1: _CAST_EPOCH})),
    "from_unixtime": (
        range(1, 3),
        _formatted("strftime(to_timestamp(:a), :b)", {1: "strftime(to_timestamp(:a), '%Y-%m-%d %H:%M:%S')"}),
    ),
    "trunc": (range(2, 3), _trunc),
    "date_trunc": (range(2, 3), _date_trunc),
    "regexp_replace": (range(3, 5), _regexp_replace),
    "format_string": (range(1, MANY), _printf),
    "printf": (range(1, MANY), _printf),
    "format_number": (range(2, 3), _format_number),
    "split": (range(2, 4), _split),
    "get_json_object": (range(2, 3), _get_json_object),
    "from_json": (range(2, 4), _from_json),
    "zip_with": (range(3, 4), _zip_with),
    "arrays_zip": (range(1, 9), _arrays_zip),
    "str_to_map": (range(1, 4), _str_to_map),
    "map_filter": (range(2, 3), _of_entries("map_filter", "list_filter(:a, :b)")),
    "transform_values": (
        range(2, 3),
        _of_entries("transform_values", "list_transform(:a, :b)", "struct_pack(k := :a, v := :c)"),
    ),
    "transform_keys": (
        range(2, 3),
        _of_entries("transform_keys", "list_transform(:a, :b)", "struct_pack(k := :c, v := :b)"),
    ),
}
"""By name: how many arguments there may be, and what writes the call."""
