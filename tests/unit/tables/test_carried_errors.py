"""The reason why an answer is NULL stays beside it, whichever way a `select` takes the answer along."""

import pyarrow as pa
import pytest

from byzerllm_magics.tables.carried_errors import carry_errors
from byzerllm_magics.tables.llm_functions import rewrite
from byzerllm_magics.tables.select import parse_query, run_query
from byzerllm_magics.tables.table import Table

ANSWERS = Table(
    pa.table({"id": [1, 2, 3], "Answer": ["one", None, "three"], "__error_of_Answer": [None, "too long", None]})
)
OTHERS = Table(pa.table({"id": [1, 2, 3], "reply": [None, "b", "c"], "__error_of_reply": ["late", None, None]}))
PLAIN = Table(pa.table({"id": [2, 1], "text": ["x", "y"]}))
SECOND = [None, "too long", None]
TABLES = {"answers": ANSWERS, "others": OTHERS, "plain": PLAIN}


def run(sql: str, **more: Table) -> Table:
    tables = (TABLES | more).__getitem__
    return run_query(rewrite(carry_errors(parse_query(sql, {}.get), tables, lambda _: [])), tables)


@pytest.mark.parametrize(
    ("sql", "column", "errors"),
    [
        ("select id, answer from answers", "answer", SECOND),
        ("select upper(answer) as loud from answers where id > 1 order by id desc", "loud", [None, "too long"]),
        (
            "select a.answer as said, p.text from plain p join answers a on a.id = p.id order by p.id",
            "said",
            [None, "too long"],
        ),
        (
            "select concat(answer, reply) as both from answers join others using (id)",
            "both",
            ["late", "too long", None],
        ),
        (
            "select said from (select answer as said from answers) order by said is null desc",
            "said",
            ["too long", None, None],
        ),
        ("with t as (select answer as said from answers) select said, said as again from t", "again", SECOND),
        ("select *, id as k from answers", "Answer", SECOND),
        ("select t.*, answer as copy from answers t", "copy", SECOND),
        ("select answer, row_number() over (order by id) as n from answers", "answer", SECOND),
    ],
)
def test_a_select_that_names_columns_keeps_their_errors(sql: str, column: str, errors: list[str | None]) -> None:
    found = run(sql)
    assert not any(name.startswith("__error_of_") for name in found.column_names)
    assert run(f"select llm_error({column}) as why from found", found=found).arrow()["why"].to_pylist() == errors


@pytest.mark.parametrize(
    "sql",
    [
        "select id, text from plain",
        "select id from answers",
        "select llm_error(answer) as why from answers",
        "select count(answer) as n from answers",
        "select answer, count(*) as n from answers group by answer",
        "select distinct answer from answers",
        "select answer from answers union all select text from plain",
        "select text from plain where text in (select answer from answers)",
        "select (select max(answer) from answers) as most",
        "select explode(array(1, 2)) as n",
    ],
)
def test_what_is_no_row_of_answers_has_no_errors(sql: str) -> None:
    assert run(sql).columns_with_errors == []


def test_the_query_stays_as_it_is() -> None:
    query = parse_query("select answer from answers", {}.get)
    before = query.sql()
    carry_errors(query, TABLES.__getitem__, lambda _: [])
    assert query.sql() == before
