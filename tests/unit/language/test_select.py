"""SQL in a script: where it ends, which table it names, which slips of the pen are read as what they mean."""

import pytest

from byzerllm_magics.language import LanguageError, Select, SetVariable, parse_script


def failure(text):
    with pytest.raises(LanguageError) as caught:
        parse_script(text)
    assert len(caught.value.render()) <= 5 or len(caught.value.problems) > 1
    return caught.value


def one(text):
    (select,) = parse_script(text)
    assert isinstance(select, Select)
    assert len(select.sql) == select.sql_span.end - select.sql_span.start, "a place in the SQL is a place in the cell"
    return select


@pytest.mark.parametrize(
    ("written", "sql", "table"),
    [
        ("select 1 as t;", "select 1", "t"),
        ("SELECT a\nAS b AS t", "SELECT a\nAS b", "t"),
        ("select value as text,file from a  as b;", "select value as text,file from a", "b"),
        ("select 1", "select 1", None),
        ("select count(*) from a b;", "select count(*) from a b", None),
        ("select cast(x as int) from a;", "select cast(x as int) from a", None),
        ("select 1 as `my table`;", "select 1", "my table"),
        ("select 1 as 表;", "select 1", "表"),
        ("select 1 as t -- the end\n/* of it */ ;", "select 1", "t"),
        ("select 1 -- as u;\nas t;", "select 1", "t"),
        ("with a as (select 1 as x)\nselect * from a as t;", "with a as (select 1 as x)\nselect * from a", "t"),
        (
            "select 1\nunion all\nselect 2\nexcept\nselect 3 as t",
            "select 1\nunion all\nselect 2\nexcept\nselect 3",
            "t",
        ),
    ],
)
def test_the_last_as_outside_brackets_names_the_table(written, sql, table):
    select = one(written)
    assert (select.sql, select.table) == (sql, table)


@pytest.mark.parametrize(
    "sql",
    [
        "select ';' , 'it''s;' , 'it\\'s;'",
        'select ";", "say ""hi"";", "say \\"hi\\";"',
        "select '\n你好；{0}\n;', \"a\nb;\"",
        "select 1 -- a; b 'c\n, 2",
        "select 1 /* a; b\n'c \"d */ , 2",
        "select `a;b`, `it's` from `x(y`",
        "select ')' , \"(\" from f(g[1])",
        "select '''', ''",
        "select 'run t as LLM.`` \nload text.`a` \nselect 1'",
        "select set, run, load, model\n, set from run",
        "select a -- union\nunion -- all\nselect b",
        "select '，；“' -- ，；\n/* （ */ from t",
    ],
)
def test_strings_comments_and_names_hold_anything(sql):
    first, second = parse_script(f"{sql} as t;\nselect 2 as u;")
    assert (first.sql, first.table, first.notes) == (sql, "t", ())
    assert (second.sql, second.table) == ("select 2", "u")


def test_sql_stands_among_other_statements_in_their_order():
    script = """
    /* select 0 as no; */
    set a = '''select 1; with b as (select 2);''';
    select '${a}' as t;  -- select 3;
    load text.`select;` as u;
    with x as (select 1) select * from x as v;;
    run u as TableRepartition.`` where partitionNum="select 1;" as w;
    !byzerllm model exists select_chat
    """
    statements = parse_script(script)
    names = ["SetVariable", "Select", "Load", "Select", "Repartition", "ModelCommand"]
    assert [type(statement).__name__ for statement in statements] == names
    spans = [statement.span for statement in statements]
    assert spans == sorted(spans, key=lambda span: span.start)
    assert isinstance(statements[0], SetVariable)
    assert statements[0].value.startswith("select 1;")


def test_spans_point_at_what_was_written():
    text = "-- 中文\nset a='1';\nselect x,\n  '中'\nas  `t`  -- end\n;"
    select = parse_script(text)[1]
    assert text[select.sql_span.start : select.sql_span.end] == select.sql == "select x,\n  '中'"
    assert text[select.table_span.start : select.table_span.end] == "`t`"
    assert (select.table_span.line, select.table_span.column) == (5, 5)
    assert text[select.span.start : select.span.end] == "select x,\n  '中'\nas  `t`"
    assert (select.span.line, select.span.column, select.span.end_line, select.span.end_column) == (3, 1, 5, 8)


@pytest.mark.parametrize(
    ("written", "sql", "notes"),
    [
        ('select f("祝")，1', 'select f("祝"),1', ["， is read as ,"]),
        ("select f（1）", "select f(1)", ["（ is read as (", "） is read as )"]),
        ("select “a，b”", 'select "a，b"', ['the quotes “ and ” are read as "']),
        ("select ‘a' ＋ 1", "select 'a' + 1", ["the quotes ‘ and ' are read as '", "＋ is read as +"]),
        ("select\n\u3000\u30001", "select\n  1", ["U+3000 is read as a space"]),
        ("select f(1,\n-- c\n)", "select f(1 \n-- c\n)", ["the comma before ) is left out"]),
        ("select f(1，)", "select f(1 )", ["， is read as ,", "the comma before ) is left out"]),
    ],
)
def test_slips_of_the_pen_are_read_as_what_they_mean_and_noted(written, sql, notes):
    select = one(f"{written} as t")
    assert (select.sql, select.table) == (sql, "t")
    assert [note.text for note in select.notes] == notes


def test_a_note_points_at_its_slip():
    text = "set a='1';\nselect f（1)，2 as t；"
    notes = parse_script(text)[1].notes
    assert [text[note.span.start : note.span.end] for note in notes] == ["（", "，", "；"]
    assert (notes[1].span.line, notes[1].span.column) == (2, 12)


def test_a_full_width_semicolon_ends_sql():
    first, second = parse_script("select 1 as t；select 2 as u；")
    assert (first.table, second.table) == ("t", "u")


@pytest.mark.parametrize(
    ("script", "what", "line", "column"),
    [
        ("select ;", "`select` has no query", 1, 1),
        ("set a='1'; select as t;", "`select` has no query", 1, 12),
        ("with as t;", "`with` has no query", 1, 1),
        ("select 1 as;", "a name is missing after `as`", 1, 10),
        ('select 1 as "t";', "the name of a table takes no quotes", 1, 13),
        ("select 1 as 1t;", "`1t` is not a name", 1, 13),
        ("select f(g(1) as t;\nselect 2 as u;", "`(` is never closed", 1, 9),
        ("select a[f(1] as t;", "`(` is never closed", 1, 11),
        ("select f(1)) as t;", "`)` closes no bracket", 1, 12),
        ("select `a as t;", "the closing ` is missing", 1, 8),
        ("select 1 /* as t;", "the closing */ of a comment is missing", 1, 10),
        ("select 'a as t;", "the closing ' is missing", 1, 8),
        ("select “a as t;", "“ is full-width punctuation", 1, 8),
        ("select 'it’s', 'a as t;", "the closing ' is missing", 1, 16),
        ("select 'a’ as t;", "the closing ' is missing: ’ is full-width", 1, 8),
        # a quote that is missing is noticed late, and named where it is missing
        ("select 'a as t;\nselect 'b' as u;", "the closing ' is missing", 1, 8),
        ('select "a” as t;\nselect "b" as u;', 'the closing " is missing: ” is full-width', 1, 8),
        ("selct 1, 2 as t;", "`selct` begins no statement", 1, 1),
    ],
)
def test_a_problem_of_sql_is_named_and_placed(script, what, line, column):
    error = failure(script)
    assert what in error.what
    assert "+" not in error.what, "one mistake gives one problem"
    assert error.where.startswith(f"line {line}, column {column}:")
    assert error.do


@pytest.mark.parametrize(
    ("script", "word", "line", "column"),
    [
        ("select 1 as t\nselect 2 as u;", "select", 2, 1),
        ("select 1 as t\n-- c\n  with a as (select 1) select 2 as u;", "with", 3, 3),
        ("select 1 as t\nload text.`a` as u;", "load", 2, 1),
        ('select 1 as t\nrun t as LLM.`` where a="1";', "run", 2, 1),
        ("select 1 as t\n!byzerllm setup sft;", "!byzerllm", 2, 1),
        ("select 1 as t\nset a = '1';", "set", 2, 1),
        ("select 1 as t\nmodel exists chat;", "model", 2, 1),
        ("load text.`a` as u\nselect 1, 2 as t;", "select", 2, 1),
        ('run t as LLM.`` where a="1" select 1, 2 as t;', "select", 1, 29),
        ("!byzerllm setup sft\nwith a as (select 1) select 2, 3 as t;", "with", 2, 1),
    ],
)
def test_a_missing_semicolon_is_named_where_the_next_statement_begins(script, word, line, column):
    error = failure(script)
    assert error.what == f"`{word}` begins a new statement"
    assert error.where.startswith(f"line {line}, column {column}:")
    assert error.do == "put ; before it"


def test_problems_behind_a_broken_select_are_found_too():
    error = failure("select 'a as t;\nload text.`x`;\nselect f(1 as u;\nset c;")
    assert "(+3 more: line 2: the statement ends where" in error.what
    for more in ("line 3: `(` is never closed", "line 4: c has no value"):
        assert more in error.what
