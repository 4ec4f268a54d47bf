"""explode and its like, in select, in lateral views and after from."""

from typing import Any

import pytest

from byzerllm_magics.tables.sql_error import SqlError
from tests.unit.tables.sql import query, rows


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select id, explode(xs) as x from t", [(1, 1), (1, 2)]),
        ("select id, explode_outer(xs) as x from t", [(1, 1), (1, 2), (2, None), (3, None)]),
        ("select id, posexplode(xs) as (p, v) from t", [(1, 0, 1), (1, 1, 2)]),
        ("select explode(m) as (k, v) from t", [("k", 1)]),
        ("select explode(m) from t", [("k", 1)]),
        ("select stack(2, 1, 'a', 2, 'b')", [(1, "a"), (2, "b")]),
        ("select inline(array(named_struct('a', 1, 'b', 2))) as (p, q)", [(1, 2)]),
        ("select explode(sequence(1, 3)) as v", [(1,), (2,), (3,)]),
        ("select explode(collect_list(id)) as v from t", [(1,), (2,), (3,)]),
        ("select id, v from t lateral view explode(xs) e as v", [(1, 1), (1, 2)]),
        ("select id, v from t lateral view outer explode(xs) e as v", [(1, 1), (1, 2), (2, None), (3, None)]),
        (
            "select id, p, v from t lateral view outer posexplode(xs) e as p, v",
            [(1, 0, 1), (1, 1, 2), (2, None, None), (3, None, None)],
        ),
        ("select id, k, v from t lateral view explode(m) e as k, v", [(1, "k", 1)]),
        ("select id, e.col from t lateral view explode(xs) e", [(1, 1), (1, 2)]),
        ("select t.id, e.v from t lateral view explode(xs) e as v where e.v > 1", [(1, 2)]),
        ("select id as c, v from t lateral view explode(xs) as v order by c desc, v", [(1, 1), (1, 2)]),
        ("select a.id, v from t as a lateral view explode(a.xs) e as v", [(1, 1), (1, 2)]),
        (
            "select a, b from t lateral view explode(xs) e as a lateral view explode(array(e.a, a * 10)) f as b",
            [(1, 1), (1, 10), (2, 2), (2, 20)],
        ),
        ("select f, g from t lateral view inline(array(st)) e as f, g where id = 1", [(1, "u")]),
        ("select k, v from one lateral view stack(2, 1, 'a', 2) e as k, v", [(1, "a"), (2, None)]),
        (
            "select w, count(*) c from t lateral view explode(split(s, ',')) e as w group by w order by w",
            [("Hello World", 1), ("a", 1), ("b", 1)],
        ),
        ("select count(*) from t join one lateral view explode(xs) e as v", [(2,)]),
        ("select q.id, v from (select id, xs from t) q lateral view explode(xs) e as v", [(1, 1), (1, 2)]),
        ("select * from explode(array(1, 2))", [(1,), (2,)]),
        ("select * from explode(array(1, 2)) as e(v)", [(1,), (2,)]),
        ("select t.id, e.v from t, lateral explode(xs) as e(v) order by v", [(1, 1), (1, 2)]),
        ("select id from range(3)", [(0,), (1,), (2,)]),
        ("select r.id from range(1, 6, 2) as r", [(1,), (3,), (5,)]),
    ],
)
def test_rows_are_made_as_spark_makes_them(sql: str, expected: list[tuple[Any, ...]]) -> None:
    assert rows(sql) == expected


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select id, explode(xs) from t", ["id", "col"]),
        ("select posexplode(xs) from t", ["pos", "col"]),
        ("select explode(m) from t", ["key", "value"]),
        ("select stack(1, 'a', 'b')", ["col0", "col1"]),
        ("select e.* from (select id, xs from t) e lateral view explode(e.xs) f as v", ["id", "xs"]),
        ("select * from (select id, xs from t) e lateral view explode(xs) f as v", ["id", "xs", "v"]),
        ("select * from (select id, xs from t) e lateral view explode(xs) f as xs", ["id", "xs", "xs_1"]),
    ],
)
def test_columns_are_called_as_spark_calls_them(sql: str, names: list[str]) -> None:
    assert query(sql).column_names == names


def test_rows_keep_their_order_in_a_lateral_view() -> None:
    found = rows("select r.id, v from range(20000) as r lateral view explode(array(0, 1)) e as v")
    assert found == [(n, v) for n in range(20_000) for v in (0, 1)]


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("select explode(xs), explode(xs) from t", "one explode or the like a select"),
        ("select id, posexplode(xs) as (a, b, c, d) from t", "posexplode makes 2 columns, and 4 names are given"),
        ("select id from t lateral view upper(s) e as v", "upper cannot stand for a table"),
        ("select inline(array(st)) from t", "inline needs names for its columns"),
        ("select stack(id, 1) from t", "stack begins with the number of rows"),
        ("select e.* from t lateral view explode(xs) e as v", "e.* is not known here"),
    ],
)
def test_what_makes_no_rows_is_refused(sql: str, what: str) -> None:
    with pytest.raises(SqlError) as caught:
        query(sql)
    assert caught.value.what == what
    assert caught.value.offset is not None


def test_a_map_without_names_says_how_to_name_its_columns() -> None:
    with pytest.raises(SqlError) as caught:
        query("select explode(q) from (select m as q from t)")
    assert "explode(x) as (k, v)" in caught.value.do
