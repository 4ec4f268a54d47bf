"""Texts where numbers are meant, and numbers where texts are: what Spark 3 makes of them, ANSI mode off."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from tests.unit.tables.sql import query, rows, values

ARITHMETIC = [
    ("n + 1", [11.0, 10.0, None]),
    ("1 - n", [-9.0, -8.0, None]),
    ("n * n", [100.0, 81.0, None]),
    ("n / 2", [5.0, 4.5, None]),
    ("n % 4", [2.0, 1.0, None]),
    ("n div 4", [2, 2, None]),
    ("-n", [-10.0, -9.0, None]),
    ("(n + 1) * 2 > 20", [True, False, None]),
    ("'10' + '1'", [11.0] * 3),
    ("id + '1'", [2.0, 3.0, 4.0]),
    ("'3' * 2", [6.0] * 3),
    ("'a' * 2", [None] * 3),
    ("abs(n)", [10.0, 9.0, None]),
    ("round(n)", [10.0, 9.0, None]),
    ("pmod(n, 4)", [2.0, 1.0, None]),
    ("sum(n) over ()", [19.0] * 3),
]
COMPARISONS = [
    ("n > 1", [True, True, None]),
    ("1 < n", [True, True, None]),
    ("n = 10", [True, False, None]),
    ("n <=> 10", [True, False, False]),
    ("n between 1 and 9", [False, True, None]),
    ("n in (9, 11)", [False, True, False]),
    ("id in ('1', 'x')", [True, False, False]),
    ("id not in ('1', 'x')", [False, True, True]),
    ("id = 'abc'", [None] * 3),
    ("id > '1.5'", [False, True, True]),
    ("id >= '2'", [False, True, True]),
    ("'1.5' > 1", [True] * 3),
    ("n > x", [True, True, None]),
    ("case n when 10 then 'a' end", ["a", None, None]),
    ("dt = 'bad'", [None] * 3),
    ("dt > s", [None] * 3),
]
TEXTS = [
    ("lpad(id, 4, '0')", ["0001", "0002", "0003"]),
    ("substr(id, 1, 1)", ["1", "2", "3"]),
    ("substring(dt, 1, 4)", ["2024", "2023", None]),
    ("upper(id)", ["1", "2", "3"]),
    ("length(x)", [3, 4, None]),
    ("trim(id)", ["1", "2", "3"]),
    ("id like '1%'", [True, False, False]),
    ("regexp_replace(id, '1', 'z')", ["z", "2", "3"]),
    ("split(id, ',')", [["1"], ["2"], ["3"]]),
    ("replace(id, '1', 'z')", ["z", "2", "3"]),
    ("instr(id, '1')", [1, 0, 0]),
    ("coalesce(n, 1)", ["10", "9", "zz"]),
    ("coalesce(nullif(n, 'zz'), id)", ["10", "9", "3"]),
    ("case when id = 1 then n else id end", ["10", "2", "3"]),
    ("if(id = 1, n, 0)", ["10", "0", "0"]),
]


@pytest.mark.parametrize(("expression", "expected"), [*ARITHMETIC, *COMPARISONS, *TEXTS])
def test_what_is_meant_is_cast_as_in_spark(expression: str, expected: list[Any]) -> None:
    found = values(expression)
    assert [(value, type(value)) for value in found] == [(value, type(value)) for value in expected]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select sum(n), avg(n), max(n) from t", [(19.0, 9.5, "zz")]),
        ("select sum(n) from t group by id having sum(n) > '9'", [(10.0,)]),
        ("select p + 1 as p from (select n as p from t) where p > 9", [(11.0,)]),
        ("with q as (select n as p from t) select sum(p) as x from q having sum(p) > 1", [(19.0,)]),
        ("with q as (select * from t) select q.n + 1 as x from q where q.id = 1", [(11.0,)]),
        ("select n + 1 from (select n from t union all select n from t) where n > 9", [(11.0,), (11.0,)]),
        ("select a.id from t a join t b on a.n = b.id + 9", [(1,)]),
        ('select id from t where n >= "${least}" and id >= "${least}"', [(3,)]),
        ("select cast(n as double) as n from t where n > 9", [(10.0,)]),
        ("select id from t a where exists (select 1 from one where one = a.n - 9)", [(1,)]),
    ],
)
def test_columns_are_known_wherever_they_come_from(sql: str, expected: list[Any]) -> None:
    assert rows(sql, least="3") == expected


def test_large_numbers_as_texts_are_compared_exactly() -> None:
    big = "(select '9007199254740993' as a, 9007199254740992 as b, 9007199254740993 as c)"
    assert rows(f"select a = b, a = c from {big}") == [(False, True)]


def test_columns_keep_the_names_that_were_written() -> None:
    assert query("select n + 1, lpad(id, 2, '0'), dt > '2024-01-01' from t").column_names == [
        "(n + 1)",
        "lpad(id, 2, '0')",
        "(dt > '2024-01-01')",
    ]
    assert values("dt")[0] == date(2024, 3, 5)
