"""Models called from SQL: all rows at once, each call once, whatever the plan; failing rows are NULL with a reason."""

from __future__ import annotations

import json

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.tables.carried_errors import carry_errors
from byzerllm_magics.tables.llm_functions import rewrite
from byzerllm_magics.tables.model_calls import run_with_models
from byzerllm_magics.tables.select import parse_query, run_query
from byzerllm_magics.tables.table import Table
from tests.unit.tables.echo import CHAT, QUESTIONS, Echo, rows


@pytest.fixture
def run():
    """Run a query over the questions."""

    def running(sql: str, echo: Echo, **tables: Table) -> Table:
        known = {"questions": Table(QUESTIONS), **tables}
        return run_with_models(parse_query(sql, {}.get), known.__getitem__, echo.models, run_query)

    return running


def test_all_rows_are_dispatched_together_in_their_order(run):
    echo = Echo()
    table = run(f"select id, llm_result({CHAT}) as answer from questions order by id desc", echo)
    assert echo.dispatched == [[{"instruction": q, "history": []} for q in ("four", "three", "two", "one")]]
    assert rows(table, "id", "answer") == [
        (4, "chat<four>0"),
        (3, "chat<three>0"),
        (2, "chat<two>0"),
        (1, "chat<one>0"),
    ]


def test_what_a_limit_or_a_condition_leaves_out_is_not_asked(run):
    echo = Echo()
    table = run(f"select {CHAT} as answer from questions where topic = 'a' order by id limit 1", echo)
    assert echo.asked == ["one"]
    assert table.arrow().num_rows == 1


def test_a_response_holds_output_input_and_metadata(run):
    table = run("select chat(llm_param(map('instruction', 'Hi', 'temperature', 0.5, 'top_p', 1))) as a", Echo())
    response = json.loads(rows(table, "a")[0])
    assert response["output"] == "chat<Hi>0"
    assert response["input"] == {"instruction": "Hi", "temperature": 0.5, "top_p": 1}
    assert {"request_id", "generated_tokens_count", "speed"} <= response["metadata"].keys()


def test_values_of_a_map_may_mix_types_and_null_ones_are_left_out(run):
    echo = Echo()
    run(
        "select chat(llm_param(map('instruction', q, 'temperature', 0.3, 'max_length', id, 'system_msg', null))) "
        "as a from questions limit 1",
        echo,
    )
    assert echo.dispatched == [[{"instruction": "one", "temperature": 0.3, "max_length": 1, "history": []}]]


def test_a_prompts_places_are_filled_once(run):
    echo = Echo()
    run(
        """select chat(llm_param(map('instruction', llm_prompt('
{0}: {1} {9} {{ {0}', array(concat('{1}', q), id))))) as a from questions limit 1""",
        echo,
    )
    assert echo.asked == ["\n{1}one: 1 {9} {{ {1}one"]


def test_a_system_message_heads_the_history(run):
    echo = Echo()
    run('select chat(llm_param(map("instruction", "x", "system_msg", "Be brief."))) as a', echo)
    assert echo.dispatched[0][0]["history"] == [{"role": "system", "content": "Be brief."}]


def test_a_stacked_call_continues_the_conversation(run):
    echo = Echo()
    follow = f"chat(llm_stack({CHAT}, llm_param(map('instruction', concat('more ', topic)))))"
    table = run(f"select llm_result({follow}) as a from questions order by id limit 2", echo)
    assert [len(call) for call in echo.dispatched] == [2, 2], "one round after the other, each for all rows"
    assert echo.dispatched[1][0] == {
        "instruction": "more a",
        "history": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "chat<one>0"}],
    }
    assert rows(table, "a") == ["chat<more a>2", "chat<more b>2"]


def test_a_conversation_goes_on_over_tables(run):
    echo = Echo()
    first = run("select id, chat(llm_param(map('instruction', q, 'system_msg', 'S'))) as a from questions", echo)
    second = run(
        "select chat(llm_stack(a, llm_param(map('instruction', 'b')))) as b from t where id = 2", echo, t=first
    )
    run("select chat(llm_stack(b, llm_param(map('instruction', 'c')))) as c from u", echo, u=second)
    assert [turn["content"] for turn in echo.dispatched[-1][0]["history"]] == [
        "S",
        "two",
        "chat<two>1",
        "b",
        "chat<b>3",
    ]


def test_a_call_that_is_written_twice_is_made_once(run):
    echo = Echo()
    run(f"select {CHAT} as whole, llm_result({CHAT}) as text from questions", echo)
    assert len(echo.asked) == 4


def test_two_models_in_one_select_are_both_asked(run):
    echo = Echo("chat", "other")
    table = run(
        f"select llm_result({CHAT}) as a, llm_result({CHAT.replace('chat', 'other')}) as b from questions", echo
    )
    assert rows(table, "a", "b")[0] == ("chat<one>0", "other<one>0")


def test_a_star_keeps_its_columns_in_their_place(run):
    table = run(f"select id + 1 as n, *, llm_result({CHAT}) as a, upper(q) as up from questions", Echo())
    assert table.arrow().column_names[:6] == ["n", "id", "q", "topic", "a", "up"]
    assert rows(table, "n", "q", "a", "up")[1] == (3, "two", "chat<two>0", "TWO")


def test_groups_are_formed_before_the_calls(run):
    echo = Echo()
    sql = """select topic, llm_result(chat(llm_param(map('instruction', concat_ws('+', collect_list(q)))))) as a
             from questions group by topic order by topic"""
    table = run(sql, echo)
    assert rows(table, "topic", "a") == [("a", "chat<one+three>0"), ("b", "chat<two+four>0")]
    assert len(echo.asked) == 2


@pytest.mark.parametrize(
    "sql",
    [
        f"with t as (select id, llm_result({CHAT}) as a from questions) select a from t where id = 2",
        f"select a from (select id, llm_result({CHAT}) as a from questions) t where id = 2",
        f"with k as (select * from questions where id < 9), t as (select id, llm_result({CHAT}) as a from k)"
        " select t.a from t join k on t.id = k.id where k.id = 2",
    ],
)
def test_inner_queries_may_call_and_every_row_of_theirs_is_asked_once(run, sql):
    echo = Echo()
    assert rows(run(sql, echo), "a") == ["chat<two>0"]
    assert sorted(echo.asked) == sorted(QUESTIONS.column("q").to_pylist())


def test_union_joins_the_answers_of_both_sides(run):
    echo = Echo()
    side = f"select llm_result({CHAT}) as a from questions where id = "
    assert sorted(rows(run(f"{side} 1 union all {side} 2", echo), "a")) == ["chat<one>0", "chat<two>0"]


def test_a_failing_row_is_null_with_its_error_beside_it(run):
    echo = Echo(fails="three")
    table = run(f"select id, llm_result({CHAT}) as a from questions", echo)
    assert rows(table, "a") == ["chat<one>0", "chat<two>0", None, "chat<four>0"]
    assert echo.models.calls == 4
    assert echo.models.failures == {"three is too much": 1}
    told = run("select llm_error(a) as e from t where a is null", echo, t=table)
    assert rows(told, "e") == ["three is too much"]
    direct = run(f"select llm_error({CHAT}) as e, llm_result({CHAT}) as a from questions", echo)
    assert rows(direct, "e")[2] == "three is too much"


def test_a_call_on_a_failed_one_is_not_made(run):
    echo = Echo(fails="one")
    follow = f"chat(llm_stack({CHAT}, llm_param(map('instruction', 'more'))))"
    table = run(f"select llm_result({follow}) as a from questions where id < 3 order by id", echo)
    assert rows(table, "a") == [None, "chat<more>2"]
    assert len(echo.asked) == 3
    assert rows(run("select llm_error(a) as e from t", echo, t=table), "e")[0] == "one is too much"


def test_on_error_fail_ends_the_query(run):
    echo = Echo(fails="three")
    with pytest.raises(ByzerError, match="three is too much"):
        run('select chat(llm_param(map("instruction", q, "on_error", "fail"))) as a from questions', echo)


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        (f"select id from questions where {CHAT} = 'x'", "in `where`"),
        (f"select count({CHAT}) as n from questions", "inside count"),
        (f"select distinct {CHAT} as a from questions", "select distinct"),
        (f"select id from questions order by {CHAT}", "in `order`"),
        ("select chta(llm_param(map('instruction', q))) as a from questions", "no model 'chta'"),
        ("select chat(q) as a from questions", "plain text"),
        ("select chat(q, id) as a from questions", "one request"),
        ("select chat(llm_param(map('instructon', q))) as a from questions", "instructon"),
        ("select chat(llm_param(map('temperature', 1))) as a from questions", "no instruction"),
        ("select llm_param(q, id) as a from questions", "llm_param takes 1 argument"),
        ("select chat(llm_param(map('instruction'))) as a from questions", "key without a value"),
    ],
)
def test_what_cannot_be_called_so_is_refused_before_any_call(run, sql, what):
    echo = Echo()
    with pytest.raises(ByzerError) as caught:
        run(sql, echo)
    assert what in str(caught.value)
    assert not echo.dispatched
    assert len(caught.value.render()) <= 5


def test_named_columns_take_the_reason_along_through_another_call(run) -> None:
    echo = Echo("chat", "second", fails="two")
    answers = run(f"select id, {CHAT} as answer from questions", echo)
    sql = 'select id, answer, second(llm_stack(answer, llm_param(map("instruction", "more")))) as more from answers'
    query = carry_errors(parse_query(sql, {}.get), {"answers": answers}.__getitem__, echo.models.calls_in)
    found = run_with_models(query, {"answers": answers}.__getitem__, echo.models, run_query)
    assert found.column_names == ["id", "answer", "more"]
    assert set(found.columns_with_errors) == {"answer", "more"}
    assert rows(found, "__error_of_answer") == [None, "two is too much", None, None]
    named = "select said from (select llm_result(answer) as said from t) where said is null"
    kept = run_query(
        rewrite(carry_errors(parse_query(named, {}.get), {"t": found}.__getitem__, lambda _: [])),
        {"t": found}.__getitem__,
    )
    assert rows(kept, "said", "__error_of_said") == [(None, "two is too much")]
