"""A call in a branch is made for the rows that need it, and what surrounds calls means what it means without them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_magics.tables.table import Table
from tests.unit.tables.echo import CHAT, QUESTIONS, Echo, ask, rows

TEXT = f"llm_result({CHAT})"


@pytest.mark.parametrize(
    ("expression", "asked", "values"),
    [
        (f"case when id = 1 then {TEXT} end", ["one"], ["chat<one>0", None, None, None]),
        (f"case when id = 1 then null else {TEXT} end", ["two", "three", "four"], [None, "two", "three", "four"]),
        (f"case id when 1 then 'x' when 2 then {TEXT} else 'z' end", ["two"], ["x", "chat<two>0", "z", "z"]),
        (f"if(id > 3, {TEXT}, 'no')", ["four"], ["no", "no", "no", "chat<four>0"]),
        (f"if(id > 3, 'no', {TEXT})", ["one", "two", "three"], ["one", "two", "three", "no"]),
        (f"coalesce(nullif(topic, 'b'), {TEXT})", ["two", "four"], ["a", "two", "a", "four"]),
        (f"nvl2(nullif(topic, 'b'), 'x', {TEXT})", ["two", "four"], ["x", "two", "x", "four"]),
        (f"id = 2 and {TEXT} = 'chat<two>0'", ["two"], [False, True, False, False]),
        (f"id != 2 or {TEXT} = 'x'", ["two"], [True, False, True, True]),
        (f"case when {TEXT} = 'chat<one>0' then {TEXT} end", ["one", "two", "three", "four"], ["one"] + 3 * [None]),
    ],
)
def test_a_call_is_made_for_the_rows_whose_branch_it_is_in(expression: str, asked: list[str], values: Any) -> None:
    echo = Echo()
    found = rows(ask(f"select id, {expression} as r from questions order by id", echo), "r")
    assert echo.asked == asked
    assert found == [f"chat<{value}>0" if value in QUESTIONS["q"].to_pylist() else value for value in values]


def test_a_branch_may_hang_on_another_answer() -> None:
    echo = Echo("chat", "other")
    sql = f"select case when {TEXT} like '%t%' then {TEXT.replace('chat', 'other', 1)} end as r from questions"
    found = rows(ask(sql.replace("like '%t%'", "like '%<t%'"), echo), "r")
    assert found == [None, "other<two>0", "other<three>0", None]
    assert [len(together) for together in echo.dispatched] == [4, 2]


def test_calls_that_wait_for_each_other_are_all_made_once() -> None:
    echo = Echo("chat", "other")
    other = TEXT.replace("chat", "other", 1)
    sql = f"""select if(id < 4, if({TEXT} is null, '', {other}), '') as a,
                     if(id > 1, if({other} is null, '', {TEXT}), '') as b from questions"""
    found = rows(ask(sql, echo), "a", "b")
    assert found[1] == ("other<two>0", "chat<two>0")
    assert (found[0][1], found[3][0]) == ("", "")
    assert len(echo.asked) == len(set(echo.asked)) * 2 == 8


def test_rows_that_need_no_answer_report_no_failure() -> None:
    echo = Echo(fails="t")
    table = ask(f"select if(id = 2, {TEXT}, 'none') as r from questions", echo)
    assert rows(table, "r", "__error_of_r") == [
        ("none", None), (None, "two is too much"), ("none", None), ("none", None)
    ]  # fmt: skip
    assert echo.models.failures == {"two is too much": 1}


# -- any expression around any call ------------------------------------------------------------------------

Row = dict[str, Any]
Made = tuple[str, Callable[[Row], Any]]
"""An expression as SQL, and what gives its value for a row."""

ROWS = [{"id": k, "q": q, "name": n} for k, (q, n) in enumerate([("a", None), (None, "b"), ("c", "c"), ("d", None)])]


class Written:
    """Writes expressions at random, and says which calls plain evaluation makes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.needed: set[str] = set()

    def text(self, depth: int) -> Made:
        simple = [self.column, self.constant]
        nested = [self.call, self.call, self.concat, self.coalesce, self.nullif, self.case, self.choice, self.field,
                  self.number]  # fmt: skip
        made: Made = self.random.choice(nested if depth else simple)(depth - 1)
        return made

    def column(self, _depth: int) -> Made:
        name = self.random.choice(["q", "name"])
        return name, lambda row: row[name]

    def constant(self, _depth: int) -> Made:
        text = self.random.choice(["x", "c", ""])
        return f"'{text}'", lambda _: text

    def call(self, depth: int) -> Made:
        sql, value = self.text(depth)
        if self.random.random() < 0.7:
            sql, inner = f"coalesce({sql}, 'none')", value
            value = lambda row: "none" if (found := inner(row)) is None else found  # noqa: E731

        def called(row: Row) -> str | None:
            asked = value(row)
            if asked is None:
                return None
            self.needed.add(asked)
            return f"chat<{asked}>0"

        return f"llm_result(chat(llm_param(map('instruction', {sql}, 'max_length', 40))))", called

    def concat(self, depth: int) -> Made:
        (a, left), (b, right) = self.text(depth), self.text(depth)

        def value(row: Row) -> str | None:
            one, other = left(row), right(row)
            return None if one is None or other is None else one + other

        return f"concat({a}, {b})", value

    def coalesce(self, depth: int) -> Made:
        (a, left), (b, right) = self.text(depth), self.text(depth)
        return f"coalesce({a}, {b})", lambda row: right(row) if (found := left(row)) is None else found

    def nullif(self, depth: int) -> Made:
        (a, left), (b, right) = self.text(depth), self.text(depth)

        def value(row: Row) -> str | None:
            one, other = left(row), right(row)
            return None if one == other else one

        return f"nullif({a}, {b})", value

    def case(self, depth: int) -> Made:
        (c, first), (d, second) = self.condition(depth), self.condition(depth)
        (a, one), (b, other), (e, default) = self.text(depth), self.text(depth), self.text(depth)

        def value(row: Row) -> Any:
            return one(row) if first(row) else other(row) if second(row) else default(row)

        return f"case when {c} then {a} when {d} then {b} else {e} end", value

    def choice(self, depth: int) -> Made:
        (c, condition), (a, one), (b, other) = self.condition(depth), self.text(depth), self.text(depth)
        return f"if({c}, {a}, {b})", lambda row: one(row) if condition(row) else other(row)

    def field(self, depth: int) -> Made:
        (a, _), (b, value) = self.text(0), self.text(depth)
        return f"named_struct('a', {a}, 'b', {b}).b", value

    def number(self, depth: int) -> Made:
        sql, value = self.text(depth)
        return (
            f"cast(length({sql}) + id as string)",
            lambda row: None if (found := value(row)) is None else str(len(found) + row["id"]),
        )

    def condition(self, depth: int) -> Made:
        kind, (a, left), (b, right) = self.random.randrange(3), self.text(depth), self.text(0)
        if kind == 0:
            k = self.random.randrange(4)
            return f"id >= {k}", lambda row: row["id"] >= k
        if kind == 1:
            return f"{a} is null", lambda row: left(row) is None

        def equal(row: Row) -> bool:
            one, other = left(row), right(row)
            return one is not None and one == other

        return f"{a} = {b}", equal


@pytest.mark.parametrize("seed", range(60))
def test_any_expression_around_calls_has_the_value_that_plain_evaluation_gives(seed: int) -> None:
    written, echo = Written(seed), Echo()
    sql, value = written.text(3)
    found = ask(f"select id, {sql} as r from rows order by id", echo, rows=Table(pa.Table.from_pylist(ROWS)))
    assert rows(found, "r") == [value(row) for row in ROWS], sql
    assert written.needed <= set(echo.asked), sql
