"""What a query does with answers: rows without a request, order, unions, names, reasons, vectors, histories."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.tables.table import Table
from tests.unit.tables.echo import CHAT, Echo, ask, rows

TEXT = f"llm_result({CHAT})"
FULL = CHAT.replace("q)", "'any')")
SOME = Table(pa.table({"id": [1, 2, 3], "q": ["b", None, "a"]}))
ONE = "chat<one>0"
YES = '{"output":"yes"}'
ANSWERS = Table(
    pa.table({"id": [1, 2], "r": ['{"output":"yes"}', None], "__error_of_r": pa.array([None, "late"], pa.string())})
)


def errors(table: Table, column: str) -> list[Any]:
    return rows(ask(f"select llm_error({column}) as why from made", Echo(), made=table), "why")


# -- rows without a request --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        CHAT,
        f"chat(llm_stack({FULL}, llm_param(map('instruction', q))))",
        "chat(map('instruction', q))",
    ],
)
def test_a_row_without_an_instruction_is_null_and_the_others_run(call: str) -> None:
    echo = Echo()
    table = ask(f"select id, {call} as r from some order by id", echo, some=SOME)
    assert [found is None for found in rows(table, "r")] == [False, True, False]
    assert errors(table, "r") == [None, "the request has no instruction", None]
    assert [request["instruction"] for request in echo.dispatched[-1]] == ["b", "a"]
    assert echo.models.failures == {"the request has no instruction": 1}


def test_on_error_fail_names_the_row_without_an_instruction() -> None:
    sql = 'select chat(llm_param(map("instruction", q, "on_error", "fail"))) as r from some'
    with pytest.raises(ByzerError, match="chat failed on row 1: the request has no instruction"):
        ask(sql, Echo(), some=SOME)


@pytest.mark.parametrize(
    "history",
    [
        """'[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]'""",
        "array(map('role', 'user', 'content', 'Hi'), map('role', 'assistant', 'content', 'Ho'))",
        "array(named_struct('role', 'user', 'content', 'Hi'), named_struct('role', 'assistant', 'content', 'Ho'))",
    ],
)
def test_a_history_may_be_a_list_or_its_json(history: str) -> None:
    echo = Echo()
    ask(f"select chat(llm_param(map('instruction', 'x', 'history', {history}))) as r", echo)
    assert echo.dispatched[0][0]["history"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
    ]


@pytest.mark.parametrize("history", ["'Hi'", "'[1]'", "'{}'", "array('a')", "3"])
def test_a_history_that_is_none_is_that_rows_error(history: str) -> None:
    echo = Echo()
    table = ask(f"select chat(llm_param(map('instruction', q, 'history', {history}))) as r from some", echo, some=SOME)
    assert errors(table, "r")[0] == 'history is no list of {"role", "content"}'
    assert not echo.dispatched


# -- vectors -----------------------------------------------------------------------------------------------


class Embeds(Echo):
    def answer(self, model: str, request: Any) -> dict[str, Any]:
        return {"text": "[0.5, 1]", "extra": {}}


def test_a_model_that_does_not_embed_says_so() -> None:
    echo, why = Echo(), "chat does not embed: deploy an embedding model"
    asked = ask(
        "select llm_embedding(chat(llm_param(map('instruction', q, 'embedding', true)))) v from some", echo, some=SOME
    )
    assert rows(asked, "v") == [None] * 3
    assert errors(asked, "v") == [why, "the request has no instruction", why]
    assert not echo.dispatched, "no text is generated for nothing"
    silent = ask(f"select llm_embedding({CHAT}) as v from some where id = 1", echo, some=SOME)
    assert (rows(silent, "v"), errors(silent, "v")) == ([None], [why])
    vectors = ask(f"select llm_embedding({CHAT}) as v from some where id = 1", Embeds(), some=SOME)
    assert rows(vectors, "v") == [[0.5, 1.0]]


# -- order and limit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clause", "found", "asked"),
    [
        ("order by r", [4, 1, 3, 2], 4),
        ("order by R desc", [2, 3, 1, 4], 4),
        ("order by 2", [4, 1, 3, 2], 4),
        ("order by topic desc, r", [4, 2, 1, 3], 4),
        ("order by length(r) desc, n desc", [3, 4, 2, 1], 4),
        ("order by r limit 2", [4, 1], 4),
        ("order by r limit 1 offset 1", [1], 4),
        ("sort by r", [4, 1, 3, 2], 4),
        ("order by n desc limit 2", [4, 3], 2),
        ("limit 2", [1, 2], 2),
    ],
)
def test_answers_can_be_ordered_by_and_a_limit_behind_it_comes_last(clause: str, found: list[int], asked: int) -> None:
    echo = Echo()
    table = ask(f"select id as n, {TEXT} as r from questions {clause}", echo)
    assert (rows(table, "n"), len(echo.asked)) == (found, asked)
    assert table.column_names == ["n", "r"]


def test_a_failed_answer_keeps_its_reason_in_the_order() -> None:
    table = ask(f"select id, {TEXT} as r from questions order by r nulls last", Echo(fails="one"))
    assert rows(table, "id", "__error_of_r")[-1] == (1, "one is too much")


# -- where answers are no rows any more --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        (f"select id, {TEXT} as r from questions where id = 1 union all select 100, 'x'",
         [(1, ONE), (100, "x")]),
        (f"select 100 as id, 'x' as r union all select id, {TEXT} from questions where id = 1",
         [(100, "x"), (1, ONE)]),
        (f"select * from (select id, {TEXT} r from questions where id < 2) union select 1, '{ONE}'",
         [(1, ONE)]),
        ("select * from answers union all select 3, 'x'", [(1, YES), (2, None), (3, "x")]),
        ("select a.* from answers a union all select 3, 'x'", [(1, YES), (2, None), (3, "x")]),
        ("(select * from answers where id = 2) union all (select 3, 'x')", [(2, None), (3, "x")]),
        ("with t as (select * from answers) select * from t union all select 3, 'x' order by id limit 1", [(1, YES)]),
        (f"select * from answers except select 1, '{YES}'", [(2, None)]),
        ("select * from answers intersect select 2, null", [(2, None)]),
        ("select id, r from answers where id in (select * from (select id from answers))", [(1, YES), (2, None)]),
        ("select id, r from answers where (id, r) in (select * from answers)", [(1, YES)]),
        ("select id, (select r.* from (select r from answers where id = 1) r) as r from answers where id = 2",
         [(2, YES)]),
        ("select id, r from answers where exists (select * from answers where id = 9)", []),
        ("select distinct * from (select id, r from answers union all select id, r from answers) order by id",
         [(1, YES), (2, None)]),
    ],
)  # fmt: skip
def test_errors_end_at_set_operations_and_values(sql: str, found: list[Any]) -> None:
    table = ask(sql, Echo(), answers=ANSWERS)
    assert list(zip(*(column.to_pylist() for column in pa.table(table).columns), strict=True)) == found


def test_distinct_rows_do_not_differ_by_what_is_hidden() -> None:
    twice = Table(pa.table({"r": pa.array([None, None], pa.string()), "__error_of_r": ["late", "lost"]}))
    assert rows(ask("select distinct * from answers", Echo(), answers=twice), "r") == [None]


# -- names and wrong uses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select *, llm_error(r) from answers", ["id", "r", "llm_error"]),
        ("select llm_result(r), llm_error(r) from answers", ["llm_result", "llm_error"]),
        ("select llm_response_predict(r) from answers", ["llm_response_predict"]),
        ("select upper(r), length(r) from answers", ["upper(r)", "length(r)"]),
        ("select llm_prompt('a', array('b'))", ["llm_prompt"]),
        (f"select {CHAT}, {TEXT}, {CHAT} from questions", ["chat", "llm_result", "chat_1"]),
    ],
)
def test_columns_without_a_name_get_a_readable_one(sql: str, names: list[str]) -> None:
    assert ask(sql, Echo(), answers=ANSWERS).column_names == names


def test_an_error_may_be_asked_for_beside_its_answer() -> None:
    table = ask(f"select {TEXT} as r, llm_error(r) as why from questions where id < 3", Echo(fails="one"))
    assert rows(table, "r", "why") == [(None, "one is too much"), ("chat<two>0", None)]


@pytest.mark.parametrize(
    ("sql", "what", "do"),
    [
        ("select llm_error(id) from answers", "llm_error takes a column of answers, and 'id' is none", "make it first"),
        ("select llm_error('x') from answers", "llm_error takes a column of answers", "make it first"),
        (f"select {CHAT} as r, llm_error(id) from questions", "and 'id' is none", "make it first"),
        ("select chat(llm_embedding(q)) as v from questions", "called with llm_embedding(…)", '"embedding", true'),
        ("select chat(llm_result(q)) as v from questions", "called with llm_result(…)", "chat(llm_param(map("),
        ("select chat(llm_stack('notjson', llm_param(map('instruction', q)))) as v from questions",
         "llm_stack continues an answer of a model, not notjson", ""),
        ("select llm_result(q) from questions", "llm_result takes an answer of a model, not one", ""),
        ("select chat(llm_param(map('instruction', q, 'max_length'))) as v from questions",
         "map(…) has a key without a value", 'map("instruction", question'),
        (f"select id, {CHAT} as r from questions where r is null", "no column 'r'", "columns: id, q, topic"),
        ("select llm_param(map('a')) as v from questions", "map(…) has a key without a value", ""),
    ],
)  # fmt: skip
def test_what_is_no_answer_or_request_is_refused_in_the_users_words(sql: str, what: str, do: str) -> None:
    echo = Echo()
    with pytest.raises(ByzerError) as caught:
        ask(sql, echo, answers=ANSWERS)
    assert what in caught.value.what
    assert do in caught.value.do
    assert "__" not in "".join(caught.value.render())
    assert not echo.dispatched


def test_a_map_is_a_request_by_itself() -> None:
    echo = Echo()
    ask("select chat(map('instruction', 'abc', 'max_length', 5)) as r", echo)
    assert echo.dispatched == [[{"instruction": "abc", "max_length": 5, "history": []}]]


def test_an_answer_may_be_part_of_a_request() -> None:
    echo = Echo()
    call = f"chat(llm_param(map('instruction', concat('+', {TEXT}), 'max_length', 5)))"
    sql = f"select llm_result({call}) as r from questions where id = 1"
    assert rows(ask(sql, echo), "r") == ["chat<+chat<one>0>0"]


@pytest.mark.parametrize("values", ["q", "array(q)", "concat(q, '')", "split(q, '_')"])
def test_a_prompt_takes_one_text_as_a_list_of_one(values: str) -> None:
    table = ask(f"select llm_prompt('<{{0}}>', {values}) as p from questions where id = 1", Echo())
    assert rows(table, "p") == ["<one>"]
    assert rows(ask("select llm_prompt('<{0}>', 'text') as p", Echo()), "p") == ["<text>"]


def test_a_prompt_of_nothing_is_null_and_not_asked() -> None:
    echo = Echo()
    table = ask("select chat(llm_param(map('instruction', llm_prompt('<{0}>', q)))) as r from some", echo, some=SOME)
    assert errors(table, "r") == [None, "the request has no instruction", None]
    assert echo.asked == ["<b>", "<a>"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("split({}, '<')", ["chat", "one>0"]),
        ("regexp_replace({}, '[0-9]', '')", "chat<one>"),
        ("transform(split({}, '<'), x -> concat(x, topic))", ["chata", "one>0a"]),
        ("size(array({}, q))", 2),
        ("get_json_object(to_json(named_struct('k', {})), '$.k')", "chat<one>0"),
    ],
)
def test_any_function_takes_the_text_of_an_answer(expression: str, value: Any) -> None:
    assert rows(ask(f"select {expression.format(TEXT)} as r from questions where id = 1", Echo()), "r") == [value]


def test_the_metadata_says_when_the_first_token_came() -> None:
    class Timed(Echo):
        def answer(self, model: str, request: Any) -> dict[str, Any]:
            return {"text": "x", "extra": {"first_token_time": 5.0, "time_cost": 10.0}}

    for echo, time in ((Timed(), 5.0), (Echo(), None)):
        [answer] = rows(ask(f"select {CHAT} as r from questions where id = 1", echo), "r")
        assert json.loads(answer)["metadata"]["first_token_time"] == time
