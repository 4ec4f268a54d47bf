"""Tables to query, and how the tests ask."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pyarrow as pa

from byzerllm_magics.tables import Catalog, Table
from byzerllm_magics.tables.select import parse_query, run_query

ROWS = pa.table(
    {
        "id": [1, 2, 3],
        "s": ["a,b", "Hello World", None],
        "x": [1.7, -2.5, None],
        "n": ["10", "9", "zz"],
        "xs": [[1, 2], [], None],
        "m": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "st": [{"f": 1, "g": "u"}, {"f": 2, "g": None}, None],
        "ts": [datetime(2024, 3, 5, 14, 7, 9), datetime(2023, 12, 31), None],
        "dt": [date(2024, 3, 5), date(2023, 12, 31), None],
        "j": ['{"a":{"b":5},"c":[1,2]}', "oops", None],
    }
)


def catalog() -> Catalog:
    """``t`` with three rows of all types, ``one`` and ``db.u`` with one row."""
    tables = Catalog()
    tables["t"] = Table(ROWS)
    tables["one"] = tables["db.u"] = Table(pa.table({"one": [1]}))
    return tables


def query(sql: str, **variables: str) -> Table:
    """Parse and run a query over the tables of `catalog`."""
    return run_query(parse_query(sql, variables.get, names=variables), catalog().table)


def rows(sql: str, **variables: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    table = query(sql, **variables).arrow()
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def values(expression: str) -> list[Any]:
    """Return an expression's value for each of the three rows of ``t``."""
    return [value for (value,) in rows(f"select {expression} as v from t")]
