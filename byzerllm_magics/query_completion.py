"""What may be written next in a query: tables, columns, models, functions, the keys of a request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .session import Session

_TABLE = re.compile(r"\b(?:from|join)\s*\Z", re.IGNORECASE)
_READ = re.compile(r"\b(?:from|join)\s+`?(?P<table>\w+)`?(?:\s+(?:as\s+)?(?P<alias>\w+))?", re.IGNORECASE)
_REQUEST = re.compile(r"\bllm_param\s*\(\s*map\s*\((?P<given>(?:[^()]|\([^()]*\))*)['\"]\Z", re.IGNORECASE)
_VALUES = re.compile(r"\([^()]*\)|'[^']*'|\"[^\"]*\"")
_MADE = re.compile(r"\bas\s+`?(?P<table>\w+)`?\s*;|\boutputTable\s*=\s*[\"']?(?P<output>\w+)", re.IGNORECASE)

_NO_ALIAS = (
    "where", "join", "on", "using", "group", "order", "having", "limit", "union", "except", "intersect", "left",
    "right", "inner", "outer", "full", "cross", "natural", "semi", "anti", "lateral", "sort", "cluster",
    "distribute", "window", "tablesample",
)  # fmt: skip
SPARK_FUNCTIONS = (
    "abs", "add_months", "array", "array_contains", "array_distinct", "array_join", "array_max", "array_min",
    "array_sort", "avg", "cast", "ceil", "coalesce", "collect_list", "collect_set", "concat", "concat_ws",
    "count", "current_date", "current_timestamp", "date_add", "date_format", "date_sub", "date_trunc",
    "datediff", "day", "dense_rank", "element_at", "exp", "explode", "filter", "first", "floor", "from_json",
    "from_unixtime", "get_json_object", "greatest", "hour", "if", "ifnull", "initcap", "instr", "lag", "last",
    "lead", "least", "length", "ln", "lower", "lpad", "ltrim", "map", "map_entries", "map_from_entries",
    "map_keys", "map_values", "max", "max_by", "md5", "mean", "min", "min_by", "minute", "mod", "month",
    "nullif", "nvl", "percentile", "posexplode", "pow", "rand", "rank", "regexp_extract", "regexp_replace",
    "repeat", "replace", "reverse", "round", "row_number", "rpad", "rtrim", "second", "sequence", "size",
    "slice", "sort_array", "split", "sqrt", "stddev", "struct", "substring", "substring_index", "sum",
    "to_date", "to_json", "to_timestamp", "transform", "trim", "unix_timestamp", "upper", "weekday", "year",
)  # fmt: skip
"""The functions of Spark that queries use most."""


def words_of_query(
    session: Session, before: str, word: str, after: str, *, tables: Iterable[str], functions: Iterable[str]
) -> list[str]:
    """Return what may stand at the cursor of a query.

    Args:
        session: Knows the columns of tables.
        before: The query up to the word that is being written.
        word: What there is of it; `b.i` asks for the columns of the table that is called b here.
        after: What follows: its `from` names the tables whose columns are meant, too.
        tables: Names of tables.
        functions: Names of functions that are not Spark's.

    """
    if _TABLE.search(before):
        return list(tables)
    request = _REQUEST.search(before)
    if request and _VALUES.sub("", request["given"]).count(",") % 2 == 0:  # keys and values take turns
        from .tables.requests import KEYS

        return [*KEYS, "generation."]
    read = _tables_read(f"{before}{word}{after}")
    head, dot, _ = word.rpartition(".")
    if dot:
        return [f"{head}.{name}" for name in session.columns(read.get(head.lower(), head))]
    columns = [name for table in dict.fromkeys(read.values()) for name in session.columns(table)]
    return [*columns, *functions, *tables, *(SPARK_FUNCTIONS if word else ())]


def tables_made(text: str) -> list[str]:
    """Return the names that statements give their results, as far as text alone tells."""
    return [match["table"] or match["output"] for match in _MADE.finditer(text)]


def _tables_read(query: str) -> Mapping[str, str]:
    """Return the tables that a query reads, by their names and aliases in lower case."""
    read: dict[str, str] = {}
    for match in _READ.finditer(query):
        table, alias = match["table"], match["alias"]
        read[table.lower()] = table
        if alias and alias.lower() not in _NO_ALIAS:
            read[alias.lower()] = table
    return read
