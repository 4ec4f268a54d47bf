"""Mistakes in queries that call models: found before anything is paid for, and shown where they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.llm_statement import deploy
from byzerllm_magics.tables.function_names import check_model_name
from byzerllm_magics.tables.sql_error import SqlError
from byzerllm_magics.tables.table import Table
from tests.unit.tables.echo import CHAT, QUESTIONS, Echo, ask, rows


def refused(sql: str, echo: Echo) -> tuple[SqlError, str | None]:
    """Return what a query is refused with, and the part of its text that is pointed at."""
    with pytest.raises(SqlError) as caught:
        ask(sql, echo)
    error = caught.value
    assert len(error.render()) <= 5
    return error, None if error.offset is None else sql[error.offset : error.offset + error.length]


@pytest.mark.parametrize(
    ("sql", "what", "mark"),
    [
        (f"select id, uper(llm_result({CHAT})) as a from questions", "no function 'uper'", "uper"),
        (f"select id, llm_reslt({CHAT}) as a from questions", "no function 'llm_reslt'", "llm_reslt"),
        (f"select date_format(llm_result({CHAT})) from questions", "date_format takes 2 arguments, not 1",
         "date_format"),
        (f"select llm_result({CHAT}, id) as a from questions", "llm_result takes 1 argument, not 2", "llm_result"),
        (f"select llm_result({CHAT}) + q as a from questions", "+ does not take", None),
        (f"select {CHAT} as a, nothing(id) as b from questions", "no function 'nothing'", "nothing"),
        (f"select uper(a) from (select llm_result({CHAT}) as a from questions) as t", "no function 'uper'", "uper"),
        (f"select idd from (select id, {CHAT} as a from questions) as t", "no column 'idd'", "idd"),
        (f"select llm_result({CHAT}) as a from questions union all select zz from questions", "no column 'zz'", "zz"),
        (
            "select chat(llm_stack(chat(llm_param(map('instruction', uper(q)))), llm_param(map('instruction', 'b'))))"
            " as a from questions",
            "no function 'uper'",
            "uper",
        ),
        (f"select llm_result({CHAT}) as a from questions order by lenght(a)", "no function 'lenght'",
         "lenght"),
    ],
)  # fmt: skip
def test_a_plain_mistake_is_found_before_a_model_is_asked(sql: str, what: str, mark: str | None) -> None:
    echo = Echo()
    error, found = refused(sql, echo)
    assert error.what.startswith(what)
    assert mark is None or found == mark
    assert not echo.dispatched
    assert echo.models.calls == 0


@pytest.mark.parametrize(
    ("sql", "what", "mark"),
    [
        ("select chat(llm_param(map('instruction', q, 'temprature', 1))) as a from questions",
         "a request has no key 'temprature'", "'temprature'"),
        ("select chatt(llm_param(map('instruction', q))) as a from questions", "no model 'chatt'", "chatt"),
        ("select id, chat(q) as a from questions", "a model is called with a request, not with a plain text", "chat"),
        ("select chat(llm_param(q, id)) as a from questions", "llm_param takes 1 argument, not 2", "llm_param"),
        ("select chat(llm_param(map('instruction', q, 'on_error', 'skip'))) as a from questions",
         "on_error is 'skip'", "'skip'"),
        ("select chat(llm_param(map('temperature', 1))) as a from questions", "the request has no instruction", "map"),
        ("select chat(llm_param(map(concat('inst', 'ruction'), q, concat('temp', 'rature'), 1))) as a from questions",
         "a request has no key 'temprature'", "chat"),
        (f"select id from questions where {CHAT} = 'x'", "the model 'chat' is called in `where`", "chat"),
        ("select chat(q, id) as a from questions", "the model 'chat' takes one request, not 2 arguments", "chat"),
        ("select chat(llm_result(q)) as a from questions", "the model 'chat' is called with llm_result(…)",
         "llm_result"),
        ("select llm_error('x') as a from questions", "llm_error takes a column of answers", "llm_error"),
        ("select id, llm_result(1) as a from questions", "llm_result takes an answer of a model, not 1", "llm_result"),
        ("select id, llm_result(q) as a from questions", "llm_result takes an answer of a model, not one",
         "llm_result"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_call_is_shown_at_its_place(sql: str, what: str, mark: str) -> None:
    echo = Echo()
    error, found = refused(sql, echo)
    assert error.what.startswith(what)
    assert found == mark
    assert not echo.dispatched


def test_a_call_that_fails_the_query_is_shown_at_its_place() -> None:
    sql = 'select chat(llm_param(map("instruction", q, "on_error", "fail"))) as a from questions'
    error, mark = refused(sql, Echo(fails="three"))
    assert (error.what, mark) == ("chat failed on row 2: three is too much", "chat")


def test_looking_for_mistakes_reads_no_rows_and_counts_no_calls() -> None:
    echo = Echo()
    table = ask(f"select max(id) as n, {CHAT.replace('q)', 'max(q))')} as a from questions", echo)
    assert rows(table, "n") == [4]
    assert echo.models.calls == 1
    assert len(echo.asked) == 1


# -- answers by the names that the same select gives them ---------------------------------------------------


def test_an_answer_may_be_used_by_its_name_in_the_same_select() -> None:
    echo = Echo(fails="two")
    table = ask(f"select id, {CHAT} as a, llm_result(a) as r, upper(r) as u, llm_error(a) as e from questions", echo)
    assert rows(table, "r", "u", "e")[:2] == [
        ("chat<one>0", "CHAT<ONE>0", None),
        (None, None, "two is too much"),
    ]
    assert len(echo.asked) == 4
    assert {"a", "r", "u"} <= set(table.columns_with_errors)


def test_the_reason_goes_along_under_the_name_to_the_query_around() -> None:
    sql = f"select r from (select id, {CHAT} as a, llm_result(a) as r from questions) as t"
    assert rows(ask(sql, Echo(fails="two")), "__error_of_r") == [None, "two is too much", None, None]


def test_a_column_of_the_table_wins_over_the_name_of_an_answer() -> None:
    table = ask(f"select {CHAT} as topic, upper(topic) as u from questions", Echo())
    assert rows(table, "u") == ["A", "B", "A", "B"]
    inner = f"select {CHAT} as k, upper(k) as u from (select topic as k, q from questions) as t"
    assert rows(ask(inner, Echo()), "u") == ["A", "B", "A", "B"]


def test_columns_that_are_listed_are_not_those_that_the_query_makes() -> None:
    error, _ = refused(f"select {CHAT} as answer, zzzz as other from questions", Echo())
    assert error.do == "columns: id, q, topic"


# -- names of models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["upper", "UPPER", "split", "explode", "llm_result", "count", "map", "case", "select"])
def test_a_model_cannot_have_the_name_of_a_function_of_sql(name: str) -> None:
    with pytest.raises(ByzerError) as caught:
        check_model_name(name)
    assert f"a model cannot be called {name}" in caught.value.what
    assert f'udfName="{name}_model"' in caught.value.do


@pytest.mark.parametrize("name", ["chat", "llama_13b_chat", "embed", "reciter", "Qwen"])
def test_any_other_name_is_free(name: str) -> None:
    check_model_name(name)


def test_nothing_is_deployed_under_the_name_of_a_function() -> None:
    session: Any = SimpleNamespace()  # nothing of it is touched
    with pytest.raises(ByzerError, match="a model cannot be called upper"):
        deploy(session, {"udfName": "upper", "localModelDir": "/nowhere"})


# -- tables without columns ---------------------------------------------------------------------------------


def test_a_table_without_columns_is_named_at_its_place() -> None:
    sql = "select * from questions, nothing"
    with pytest.raises(SqlError) as caught:
        ask(sql, Echo(), questions=Table(QUESTIONS), nothing=Table(pa.table({})))
    assert caught.value.what == "the table nothing is empty: it has no columns"
    assert sql[caught.value.offset :] == "nothing"
