"""`load` and `run … as TableRepartition`: every form, where it was written, and what is said when it is wrong."""

import pytest

from byzerllm_magics.language import LanguageError, Load, Repartition, RunLLM, parse_run, parse_script, parse_setup


def failure(parse, text):
    with pytest.raises(LanguageError) as caught:
        parse(text)
    assert len(caught.value.render()) <= 5 or len(caught.value.problems) > 1
    assert "+" not in caught.value.what, "one mistake gives one problem"
    return caught.value


def options(statement):
    return {option.key: option.value for option in statement.options}


@pytest.mark.parametrize(
    ("written", "format", "path", "found", "table"),
    [
        ('load text.`file:///d/*`\nwhere wholetext="true" as t;', "text", "file:///d/*", {"wholetext": "true"}, "t"),
        ("LOAD json.`a b;c.json` AS 表", "json", "a b;c.json", {}, "表"),
        (
            "load csv . `x` where header=true, `a.b`='\\t' as `my t`;",
            "csv",
            "x",
            {"header": "true", "a.b": "\t"},
            "my t",
        ),
        ("load delta.`a.b` where as t", "delta", "a.b", {}, "t"),
        ("load parquet.`p` -- c\n/* d */ where a=load as t", "parquet", "p", {"a": "load"}, "t"),
    ],
)
def test_every_form_of_load(written, format, path, found, table):
    (load,) = parse_script(written)
    assert isinstance(load, Load)
    assert (load.format, load.path, options(load), load.table) == (format, path, found, table)
    assert load.notes == ()


def test_a_table_is_repartitioned():
    (cut,) = parse_script('RUN t AS tablerepartition.`` WHERE partitionNum="24" and partitionCols="file" as u;')
    assert isinstance(cut, Repartition)
    assert (cut.source, options(cut), cut.table) == ("t", {"partitionNum": "24", "partitionCols": "file"}, "u")


def test_spans_point_at_what_was_written():
    text = '-- 中\nload text.`/d/中`\n  where a="1" as t;\nrun `t` as TableRepartition.`` where n=2 as\nu;'

    def written(span):
        return text[span.start : span.end]

    load, cut = parse_script(text)
    assert [written(span) for span in (load.format_span, load.path_span, load.table_span)] == ["text", "/d/中", "t"]
    assert (load.path_span.line, load.path_span.column) == (2, 12)
    assert written(load.options[0].value_span) == '"1"'
    assert written(load.span) == 'load text.`/d/中`\n  where a="1" as t'
    assert [written(span) for span in (cut.source_span, cut.table_span)] == ["`t`", "u"]
    assert cut.source == "t"
    assert written(cut.span).endswith("as\nu")


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_script, 'load text.`x` where and a="1" as t'),
        (parse_script, 'run t as TableRepartition.`` where\nAND a="1" as u'),
        (parse_script, 'run command as LLM.`` where -- c\nand a="1"'),
        (parse_run, 'run command as LLM.`` where and a="1"'),
        (parse_run, 'where and a="1"'),
    ],
)
def test_an_and_directly_after_where_is_tolerated_and_noted(parse, text):
    parsed = parse(text)
    statement = parsed if isinstance(parsed, RunLLM) else parsed[0]
    (note,) = statement.notes
    assert text[note.span.start : note.span.end].lower() == "and"
    assert note.text == "`and` directly after `where` is left out"


@pytest.mark.parametrize(
    ("script", "what", "column"),
    [
        ("load text.`x`;", "the statement ends where `where` or `as` is expected", 6),
        ('load text.`x` where a="1";', "the statement ends where `as NAME` is expected", 23),
        ("load text.`x` as;", "the statement ends where a name is expected", 15),
        ('load text.`x` as "t";', "the name of a table takes no quotes", 18),
        ("load text.`x` as a.b;", "`a.b` is not a name", 18),
        ("load text.`x` as load;", "`load` stands where a name is expected", 18),
        ("load text.`` as t;", "text.`` has no path", 6),
        ('load csv.`t.csv where header="true" as y;', "the closing ` is missing", 6),
        ("load csv.`t.csv as y;\nset a='1';", "the closing ` is missing", 6),
        ("run command as LLM.` where a='1';", "the closing ` is missing", 16),
        ("load text as t;", "`text` stands where text.`path` is expected", 6),
        ("load text.'x' as t;", "`text.` stands where text.`path` is expected", 6),
        ("load text.`x` where a= as t;", "a has no value", 21),
        ('load text.`x` where a="1"，b="2" as t;', "， is full-width punctuation", 26),
        ('load text.`x` where a="1" and a="2" as t;', "a is given twice", 31),
        ('load text.`x` as t where a="1";', "`where` stands where the end of the statement is expected", 20),
        ("laod text.`x` as t;", "`laod` begins no statement", 1),
        ('run t as TableRepartition.`` where a="1";', "the statement ends where `as NAME` is expected", 38),
        ("run t as TableRepartition.`` as u;", "`as` stands where `where` is expected", 30),
        ('run t as TableRepartition where a="1" as u;', "`TableRepartition` stands where TableRepartition.``", 10),
        ('run "t" as TableRepartition.`` where a="1" as u;', "the name of a table takes no quotes", 5),
        ('run t as TableRepartiton.`` where a="1" as u;', "`run … as TableRepartiton` is not known here", 10),
        ('run t as Foo.`` where a="1" as u;', "`run … as Foo` is not known here", 10),
        ('run t as LLM.`x` where a="1";', "`LLM.`x`` stands where LLM.`` is expected", 10),
        ('run t as LLM.`` where a="1" as u;', "`as` names a table, and this statement has none", 29),
        ('load text.`x` where a="1"\nload text.`y` as t;', "`load` stands where `as NAME` is expected", 1),
        ("load text.`x` as t\nload text.`y` as u;", "`load` begins a new statement", 1),
        ("load text.`x` as t; /* c", "the closing */ of a comment is missing", 21),
    ],
)
def test_a_problem_is_named_and_placed(script, what, column):
    error = failure(parse_script, script)
    assert what in error.what
    assert f", column {column}:" in error.where
    assert error.do


@pytest.mark.parametrize(
    ("script", "meant"),
    [
        ('run t as TableRepartiton.`` where a="1" as u;', "did you mean TableRepartition.``?"),
        ('run t as LMM.`` where a="1";', "did you mean LLM.``?"),
        ("laod text.`x` as t;", "did you mean load?"),
        ("selct 1 as t;", "did you mean select?"),
    ],
)
def test_the_nearest_known_name_is_offered(script, meant):
    assert meant in failure(parse_script, script).do


@pytest.mark.parametrize("parse", [parse_run, parse_setup])
@pytest.mark.parametrize(
    ("body", "word", "line"),
    [
        ('load text.`x` where a="1" as t;', "load", 1),
        ("select a, 'b from t as u;", "select", 1),
        ("with a as (select 1) select 2, 3", "with", 1),
        ('a="1"\nload text.`x` where b="1" as t', "load", 2),
        ('a="1"\nselect a, b from t as u', "select", 2),
        ('a="1"; set b="1"', "set", 1),
    ],
)
def test_other_statements_are_sent_to_a_bare_cell(parse, body, word, line):
    error = failure(parse, body)
    assert error.what == f"`{word}` is a statement of its own"
    assert error.where.startswith(f"line {line},")
    assert "below a bare %%byzerllm" in error.do


def test_a_run_cell_sends_repartition_to_a_bare_cell():
    error = failure(parse_run, 'run t as TableRepartition.`` where a="1" as u;')
    assert error.what == "`TableRepartition` is a statement of its own"
    assert error.where.startswith("line 1, column 10:")


def test_a_second_name_after_run_as_is_refused():
    with pytest.raises(LanguageError, match=r"`TableRepartition.``` stands where `where` is expected"):
        parse_run("run t as TableRepartition.`` TableRepartition.`` where a='1' as u")


def test_keys_named_like_statements_stay_keys():
    assert [a.key for a in parse_run("select=1\nwith = 2 and load='3'").parameters] == ["select", "with", "load"]
