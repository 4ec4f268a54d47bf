"""From text to an expression: `${name}`, what is tolerated, what is refused and where."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

from byzerllm_magics.tables.select import parse_query
from byzerllm_magics.tables.sql_error import SqlError
from tests.unit.tables.sql import query, rows

VARIABLES = {"who": 'it\'s ${n} -- ; \\ "x"', "n": "2"}


def refused(sql: str) -> SqlError:
    with pytest.raises(SqlError) as caught:
        parse_query(sql, VARIABLES.get, names=VARIABLES)
    assert len(caught.value.render()) <= 5
    return caught.value


def marked(error: SqlError, sql: str) -> str | None:
    """Return the part of the text that an error points at."""
    return None if error.offset is None else sql[error.offset : error.offset + error.length]


# -- variables --------------------------------------------------------------------------------------------


def test_variables_are_replaced_in_strings_of_both_quotes_once() -> None:
    assert rows("""select 'a ${who}' a, "${n}${ n }" b""", **VARIABLES) == [('a it\'s ${n} -- ; \\ "x"', "22")]


def test_names_code_and_comments_are_left_alone() -> None:
    query_ = parse_query("select `${n}`, 1 /* ${zz} */ from t -- ${zz}", VARIABLES.get)
    assert [column.name for column in query_.find_all(exp.Column)] == ["${n}"]


def test_a_variable_is_replaced_before_a_pattern_is_read() -> None:
    assert rows("select date_format('2024-03-05', '${f}') v", f="dd/MM") == [("05/03",)]
    assert rows("""select get_json_object('{"a": 5}', '${p}') v""", p="$.a") == [("5",)]


def test_an_undefined_variable_is_an_error_at_its_place() -> None:
    sql = "select 1,\n 'x ${wo}'"
    error = refused(sql)
    assert (error.what, marked(error, sql)) == ("${wo} is not defined", "${wo}")
    assert error.do.startswith("did you mean ${who}?")


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_a_value_stays_one_value_whatever_it_holds(text: str) -> None:
    sql = "select '${v}' a, concat(\"${v}\", '|', '${v}') b, array('${v}')[0] c, length('${v}') d"
    assert rows(sql, v=text) == [(text, f"{text}|{text}", text, len(text))]


@pytest.mark.parametrize(
    "position",
    [
        "date_trunc('${v}', now())",
        "trunc(now(), '${v}')",
        "interval '${v}' day",
        "interval '1' day + interval '${v}'",
        "date_format(now(), '${v}')",
        "get_json_object('{}', '${v}')",
        "cast('${v}' as int)",
        "'a' like '${v}'",
        "'a' rlike '${v}'",
        "regexp_replace('a', 'a', '${v}')",
        "extract(day from '${v}')",
        "timestampadd('${v}', 1, now())",
        "datediff('${v}', now(), now())",
        "from_json('{}', '${v}')",
        "decode('a', '${v}', 1)",
        "named_struct('${v}', 1)",
        "map('${v}', 1)['${v}']",
        "date '${v}'",
        "format_string('${v}', 1)",
        "percentile_approx(1, 0.5, '${v}')",
    ],
)
@pytest.mark.parametrize(
    "attack",
    ["day'), (select 'seen", "1) , (select 'seen') --", "day, now()), ('seen'", "x\" union select 'seen' --", "$'seen"],
)
def test_no_value_becomes_code(position: str, attack: str) -> None:
    try:
        table = query(f"select {position} as v", v=attack)
    except SqlError:
        return
    assert table.column_names == ["v"]
    assert table.num_rows == 1


# -- what is tolerated ------------------------------------------------------------------------------------


def test_typing_errors_of_the_documents_are_tolerated_with_a_note() -> None:
    notes: list[tuple[str, int]] = []
    sql = "select map('，', array(\"a\")，\n'b', array('c'),) as q, from t"
    parsed = parse_query(sql, VARIABLES.get, note=lambda text, offset: notes.append((text, offset)))
    assert [sql[offset] for _, offset in sorted(notes, key=lambda note: note[1])] == ["，", ",", ","]
    assert parsed.find(exp.Literal).name == "，"


def test_a_semicolon_may_end_the_query() -> None:
    assert rows("select 1 as v ;\n; ") == [(1,)]


def test_places_are_those_of_the_text_that_was_written() -> None:
    sql = "select '${n}${n}' as a,\n   upper(s) as 名 from t"
    parsed = parse_query(sql, VARIABLES.get)
    places = {node.name: sql[node.meta["start"] : node.meta["end"] + 1] for node in parsed.find_all(exp.Identifier)}
    assert places == {"a": "a", "s": "s", "名": "名", "t": "t"}


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "what", "mark"),
    [
        ("", "there is no query", None),
        (" -- nothing\n;", "there is no query", None),
        ("selec id from t", "selec … is not a query", "selec"),
        ("select a b c from t", "unexpected c", "c"),
        ("select a\nfrom t\nwhere", "something is missing after where", "where"),
        ("select (a from t", "expecting ) after from", "from"),
        ("select a,, b from t", "nothing between two commas", ","),
        ("select 'abc from t", "this string has no end", "'"),
        ('select 1, "abc', "this string has no end", '"'),
        ("select `abc from t", "this name has no end", "`"),
        ("select “a” from t", "“ is full-width punctuation", "“"),
        ("select upper（s） from t", "（ is full-width punctuation", "（"),
        ("select 1; select 2", "one query is expected, and another statement follows", "select"),
        ("select * form t", "unexpected form", "form"),
        ("select id from t wher id = 1", "unexpected wher", "wher"),
        ("select id from t limit abc", "limit takes a number, not abc", "abc"),
        ("select id from t limit 1 offset x", "offset takes a number, not x", "x"),
        ("select id, dt + interval 1 dayy from t", "an interval has no unit 'dayy'", "dayy"),
        ("select dt + interval '2' daze from t", "an interval has no unit 'daze'", "daze"),
    ],
)
def test_what_is_no_query_is_refused_at_its_place(sql: str, what: str, mark: str | None) -> None:
    error = refused(sql)
    assert (error.what, marked(error, sql)) == (what, mark)


@pytest.mark.parametrize(
    ("sql", "do"),
    [
        ("select * form t", "did you mean from?"),
        ("select count(*) c from t gruop by id", "did you mean group?"),
        ("select id from t oder by id", "did you mean order?"),
        ("select dt + interval 1 dayy from t", 'did you mean "day"?'),
    ],
)
def test_a_mistyped_word_is_told_with_the_right_one(sql: str, do: str) -> None:
    assert refused(sql).do == do


@pytest.mark.parametrize(
    "sql",
    [
        "drop table t", "insert into t select 1", "delete from t", "update t set a = 1", "create table x as select 1",
        "alter table t add column a int", "truncate table t", "copy t to '/tmp/x'", "attach '/tmp/x'", "set x = 1",
        "pragma version", "call f()", "show tables", "describe t", "explain select 1", "use db", "load x", "install x",
        "merge into t using u on 1 = 1 when matched then delete", "cache table t", "add jar 'x'", "refresh table t",
        "export database 'x'", "vacuum", "checkpoint", "begin", "execute immediate 'drop'", "t", "1 + 1",
    ],
)  # fmt: skip
def test_only_queries_are_queries(sql: str) -> None:
    error = refused(sql)
    assert error.what.endswith("is not a query")
    assert error.offset == 0


@pytest.mark.parametrize(
    ("sql", "mark"),
    [
        ("with x as (insert into t select 1) select 1", "t"),
        ("with x as (delete from t) select 1", "t"),
        ("select * into x from t", "x"),
        ("select transform(a) using 'cat' as (b) from t", "a"),
    ],
)
def test_nothing_changes_inside_a_query_either(sql: str, mark: str) -> None:
    error = refused(sql)
    assert error.what.startswith("a query cannot hold ")
    assert marked(error, sql) == mark


@pytest.mark.parametrize(
    "function",
    [
        "read_csv('/etc/passwd')", "read_csv_auto('/etc/passwd')", "read_parquet('x')", "parquet_scan('x')",
        "read_json('x')", "read_text('/etc/passwd')", "read_blob('/etc/passwd')", "sniff_csv('x')", "duckdb_settings()",
        "duckdb_secrets()", "pragma_database_list()", "query('select 1')", "query_table('t')", "sqlite_scan('x', 'y')",
        "arrow_scan(1, 2, 3)", "pandas_scan(1)", "python_map_function()", "which_secret('a', 'b')", "unknown(1)",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "sql",
    [
        "select * from {}",
        "select 1 where exists (select 1 from {})",
        "select * from t join {} on 1 = 1",
        "with x as (select * from {}) select 1",
        "select * from t, lateral {}",
        "select * from t lateral view {} e as x",
        "select 1 union all select * from {}",
    ],
)
def test_nothing_but_named_tables_is_read(sql: str, function: str) -> None:
    error = refused(sql.format(function))
    assert "cannot stand for a table" in error.what
    assert error.offset is not None


def test_a_file_as_a_table_says_how_to_load_it() -> None:
    error = refused("select * from csv.`/data/x.csv`")
    assert error.what == "a query reads named tables, not files: csv.`/data/x.csv`"
    assert error.do == "load csv.`/data/x.csv` as t; makes a table of them"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_query_is_read_or_gives_an_error_of_ours(data: Any) -> None:
    sql = (
        "select a.id, upper(\"x\") as `名`, map('k', 1)['k'], case when s like '%a' then 1 else 2.5 end "
        "from t as a left join u on a.id = u.id lateral view explode(xs) e as x where id in (1, 2) "
        "group by id having count(*) > 1 order by id desc limit 3"
    )
    pieces = st.sampled_from(["", "(", ")", "'", '"', "`", ",", "，", ";", " from ", "${x}", "--"])
    for _ in range(data.draw(st.integers(1, 4))):
        at, length = data.draw(st.integers(0, len(sql))), data.draw(st.integers(0, 8))
        sql = sql[:at] + data.draw(pieces) + sql[at + length :]
    error = error_of(sql)
    if error is not None:
        assert error.offset is None or 0 <= error.offset <= len(sql)
        assert len(error.render()) <= 5


def error_of(sql: str) -> SqlError | None:
    """Return what a query is refused with; any other exception is a defect of ours."""
    try:
        parse_query(sql, VARIABLES.get)
    except SqlError as error:
        return error
    return None


def test_the_query_of_the_first_document_is_read() -> None:
    sql = """select
llama_13b_chat(llm_param(map(
              "user_role","User",
              "temperature",0.3,
              "instruction",llm_prompt('
你好，请记住我的名字：{0}
',array("祝威廉"))，
              "generation.image","https://www.baidu.com/img/flexible/logo/pc/result.png",

)))

 as q"""
    parsed = parse_query(sql, VARIABLES.get)
    [call] = [node for node in parsed.find_all(exp.Anonymous) if node.name == "llama_13b_chat"]
    assert sql[call.meta["start"] : call.meta["end"] + 1] == "llama_13b_chat"
    keys = parsed.find(exp.VarMap).args["keys"].expressions
    assert [key.name for key in keys] == ["user_role", "temperature", "instruction", "generation.image"]
    assert parsed.selects[0].alias == "q"


def test_a_reference_outside_quotes_says_what_to_write() -> None:
    error = error_of("select * from t where n >= ${least}")
    assert error is not None
    assert "${least} is replaced inside quotes only" in error.what
    assert error.do == 'write "${least}"'
    assert (error.offset, error.length) == (27, 8)
    assert error_of("select '${' as a, `${x}` -- ${y}\n from t") is None
