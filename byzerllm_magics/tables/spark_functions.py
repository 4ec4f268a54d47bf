"""Spark's functions in DuckDB's words: those that sqlglot does not know or translates to something else."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlglot import exp

from .spark_written import MANY, WRITTEN
from .sql_error import SqlError
from .sql_templates import filled

_TEMPLATES: Mapping[str, str] = {
    # text
    "substring_index": "case when :c > 0 then array_to_string(list_slice(str_split(:a, :b), 1, :c), :b)"
    " else array_to_string(list_slice(str_split(:a, :b), :c, -1), :b) end",
    "replace/2": "replace(:a, :b, '')",
    "btrim/1": "trim(:a)",
    "btrim/2": "trim(:a, :b)",
    "find_in_set": "coalesce(list_position(str_split(:b, ','), :a), 0)",
    "isnull": ":a is null",
    "isnotnull": ":a is not null",
    # types, by Spark's names
    "typeof": "replace(replace(replace(replace(replace(replace(regexp_replace(regexp_replace("
    r"lower(typeof(:a)), '^(.*)\[\]$', 'array<\1>'), '^(map|struct)\((.*)\)$', '\1<\2>'),"
    " 'varchar', 'string'), 'hugeint', 'bigint'), 'integer', 'int'), 'blob', 'binary'), ' with time zone', ''),"
    """ '"null"', 'void')""",
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
    # JSON
    "to_json": "case when :a is not null then cast(json_merge_patch('{}', to_json(:a)) as varchar) end",
    # aggregates
    "max_by": "arg_max_null(:a, :b)",
    "min_by": "arg_min_null(:a, :b)",
    "some": "bool_or(:a)",
    "every": "bool_and(:a)",
    # dates and times; what is none gives NULL, not an error
    "date_add": "try_cast(:a as date) + cast(:b as integer)",
    "date_sub": "try_cast(:a as date) - cast(:b as integer)",
    "add_months": "cast(try_cast(:a as date) + to_months(cast(:b as integer)) as date)",
    "dayofweek": "dayofweek(try_cast(:a as date)) + 1",
    "weekday": "isodow(try_cast(:a as date)) - 1",
    "hour": "hour(try_cast(:a as timestamp))",
    "minute": "minute(try_cast(:a as timestamp))",
    "second": "second(try_cast(:a as timestamp))",
    "now": "cast(now() as timestamp)",
    # rows
    "monotonically_increasing_id": "row_number() over () - 1",
}
"""By name, or name/number of arguments; ``:a``, ``:b``, … are the arguments in order."""

REFUSED: Mapping[str, str] = {
    "hash": "it would give other numbers than Spark's; md5(cast(x as string)) gives the same everywhere",
    "xxhash64": "it would give other numbers than Spark's; md5(cast(x as string)) gives the same everywhere",
    "crc32": "md5(cast(x as string)) tells texts apart as well",
    "soundex": "levenshtein(a, b) tells how alike two texts are",
    "current_user": "one user's session runs the query: write the name as a text",
    "session_user": "one user's session runs the query: write the name as a text",
    "user": "one user's session runs the query: write the name as a text",
    "input_file_name": "load text gives a column file",
    "json_tuple": "use get_json_object(x, '$.key') for each key",
    "bround": "rounding half to even is not there: round(x, n) rounds half away from zero",
    "conv": "use hex, unhex or bin",
    "java_method": "no code is run here",
    "reflect": "no code is run here",
}
"""Functions that are not there, and what to do instead."""

GENERATORS = (
    "explode", "explode_outer", "posexplode", "posexplode_outer", "inline", "inline_outer", "stack", "range",
)  # fmt: skip
"""Functions that make rows of values; see `spark_rows`."""

_TYPED = ("size", "cardinality", "reverse")
"""Functions whose translation hangs on the type of their argument; see `spark_operators`."""

NAMES = frozenset({key.partition("/")[0] for key in _TEMPLATES} | {*REFUSED, *WRITTEN, *GENERATORS, *_TYPED})
"""Functions that sqlglot has to leave as they are written."""


CASTS = (
    "bigint", "binary", "boolean", "date", "decimal", "double", "float", "int", "smallint", "string", "timestamp",
    "tinyint",
)  # fmt: skip
"""Types whose name is also a function that casts."""


def _counts_of_templates() -> dict[str, range]:
    counts: dict[str, set[int]] = defaultdict(set)
    for key, template in _TEMPLATES.items():
        name, _, number = key.partition("/")
        counts[name].add(int(number) if number else len(set(re.findall(r":[a-h]\b", template))))
    return {name: range(min(found), max(found) + 1) for name, found in counts.items()}


_COUNTS: Mapping[str, range] = {
    **_counts_of_templates(),
    **{name: count for name, (count, _) in WRITTEN.items()},
    **dict.fromkeys((*_TYPED, *GENERATORS, *CASTS), range(1, 2)),
    "replace": range(2, 4),  # three are DuckDB's own
    "to_json": range(1, 3),  # options are for reading it back
    "stack": range(2, MANY),
    "range": range(1, 4),
}
"""How many arguments a function takes."""


def translated(name: str, arguments: Sequence[exp.Expression]) -> exp.Expression | None:
    """Return a function's call in DuckDB's words; None: it is written so already.

    Raises:
        SqlError: the function is refused by name; there are too few or too many arguments, or one has to be written
            otherwise.
    """
    if name in REFUSED:
        raise refusal(name)
    check_count(name, len(arguments))
    if name in WRITTEN:
        _, write = WRITTEN[name]
        return write(arguments)
    template = _TEMPLATES.get(f"{name}/{len(arguments)}") or _TEMPLATES.get(name)
    return template and filled(template, *arguments)


def refusal(name: str) -> SqlError:
    """Return the error of a function that is not there."""
    return SqlError(f"{name} does not exist here", do=REFUSED[name])


def check_count(name: str, count: int) -> None:
    """Refuse a call with too few or too many arguments.

    Raises:
        SqlError: how many the function takes.
    """
    allowed = _COUNTS.get(name)
    if allowed is not None and count not in allowed:
        raise SqlError(f"{name} takes {_written(allowed)}, not {count}")


def _written(allowed: range) -> str:
    low, high = allowed[0], allowed[-1]
    if high >= MANY - 1:
        return f"at least {low} argument{'s' * (low != 1)}"
    between = " or " if high == low + 1 else " to "
    number = str(low) if low == high else f"{low}{between}{high}"
    return f"{number} argument{'s' * (high != 1)}"
