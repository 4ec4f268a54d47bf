"""Cells that cannot be read: what is said, where the caret points, what to do."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzerllm_magics.language import LanguageError, Span, parse_run, parse_script, parse_setup, problem_error
from byzerllm_magics.language.errors import SHOWN, SOURCE_WIDTH, display_width


def failure(parse, text):
    with pytest.raises(LanguageError) as caught:
        parse(text)
    assert len(caught.value.render()) <= 5 or len(caught.value.problems) > 1
    return caught.value


@pytest.mark.parametrize(
    ("body", "what", "column"),
    [
        ('udfName="chat', 'the closing " is missing', 9),
        ("d='''{\n}", "the closing ''' is missing", 3),
        ('udfName="chat”', 'the closing " is missing: ” is full-width', 9),
        ('udfName "chat"', "`=` is missing after udfName", 1),
        ('a="1" and reconnect', "reconnect has no value", 11),
        ("udfName= and a='1'", "udfName has no value", 1),
        ("udfName＝chat", "＝ is full-width punctuation", 8),
        ("udfName=“chat”", "“ is full-width punctuation", 9),
        ('a="1"，b="2"', "， is full-width punctuation", 6),
        ('a="1"；', "； is full-width punctuation", 6),
        ('（a="1"', "（ is full-width punctuation", 1),
        ("localModelDir=/my dir/x", "`dir/x` follows a value without quotes", 19),
        ('a="infer and b="chat"', "`chat` follows a closing quote directly", 17),
        ('a="1" "2"', '"2" has no key', 7),
        ("a==1", "`=` has no key", 3),
        ('set x="1"', "`set` is a statement of its own", 1),
        ('run command as LLM where a="1"', "`LLM` stands where LLM.`` is expected", 16),
        ('run command as LLM.`` a="1"', "`a` stands where `where` is expected", 23),
        ("run command", "the statement ends where `as` is expected", 5),
        ('run command as LLM.`` where a="1"; b="2"', "holds one statement", 36),
        ("", "the cell holds no parameter", 1),
        ("run command as LLM.`` where ;", "the cell holds no parameter", 1),
    ],
)
def test_a_problem_of_a_run_cell_is_named_and_placed(body, what, column):
    error = failure(parse_run, body)
    assert what in error.what
    assert error.where.startswith(f"line 1, column {column}")
    assert error.do


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("single\nnum_gpus 2", "`=` is missing after num_gpus"),
        ("single\nsft", "sft is a second mode, after single"),
        ("num_gpus=2\nsingle", "single has no value; as a mode it would reset"),
        ('!byzerllm setup "single"', '"single" is not a setting'),
        ("num_gpus=2\n!byzerllm setup num_gpus=4", "num_gpus is given twice, on line 1 and on line 2"),
    ],
)
def test_a_problem_of_a_setup_cell_is_named(body, what):
    error = failure(parse_setup, body)
    assert what in error.what
    assert "+" not in error.what, "one mistake gives one problem"


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("run t as Foo.`` where a='1';", "`run … as Foo` is not known"),
        ("!byzerllm serve x;", "`!byzerllm serve` is not a command"),
        ("selct 1", "`selct` begins no statement"),
        ('run command as LLM.`` where a="1"\nset x="1"', "`set` begins a new statement"),
        ("！byzerllm setup sft", "！ is full-width punctuation"),
        ("!byzerllm model remove;", "the statement ends where a name is expected"),
        ("!byzerllm setup single；", "； is full-width punctuation"),
        ("set x;", "x has no value"),
        ('action="infer"\nand udfName="chat"', "`action` is a key, and begins no statement"),
    ],
)
def test_a_problem_of_a_script_is_named(script, what):
    error = failure(parse_script, script)
    assert what in error.what
    assert "+" not in error.what, "one mistake gives one problem"


def test_all_problems_of_a_cell_are_named_at_once():
    error = failure(parse_run, 'udfName "chat"\nname="a\nb="1"\nand b="2"，c="3"')
    assert error.what.startswith("`=` is missing after udfName (+3 more: line 2: the closing")
    for more in ("b is given twice, on line 3 and on line 4", "line 4: ， is full-width punctuation"):
        assert more in error.what


def test_problems_of_several_statements_are_found_at_once():
    error = failure(parse_script, 'set a "1";\nset b="2";\nset c;')
    assert "(+1 more: line 3:" in error.what


def test_the_caret_stands_below_its_place_in_columns_of_the_screen():
    line, caret = failure(parse_run, 'name="中文" and udfName "chat"').where.split("\n")[1:]
    assert display_width(line.split("udfName")[0]) == display_width(caret.rstrip("^"))
    assert caret.strip() == "^" * len("udfName")


def test_a_long_line_is_clipped_around_the_caret():
    body = f'a="{"长" * 200}" and udfName "chat" and b="{"x" * 200}"'
    line, caret = failure(parse_run, body).where.split("\n")[1:]
    assert display_width(line) <= SOURCE_WIDTH + 4
    assert display_width(line.split("udfName")[0]) == display_width(caret.rstrip("^"))


def test_a_line_of_any_length_is_clipped_at_once():
    error = failure(parse_run, f'a="{"长x" * 200_000}" and udfName "chat"')
    assert display_width(error.where.split("\n")[1]) <= SOURCE_WIDTH + 4


def test_parameter_problems_are_shown_in_the_cell():
    text = 'a="1"\nb="2"'
    _, b = parse_run(text).parameters
    error = problem_error(text, [(b.value_span, "b is too large", "give at most 1")])
    assert error.render() == [
        "LanguageError: b is too large",
        "line 2, column 3:",
        '    b="2"',
        "      ^^^",
        "→ give at most 1",
    ]


def test_each_of_several_problems_has_its_place_a_caret_and_advice():
    text = 'udfName "chat"\nname="a"\nlocalModelDir='
    assert failure(parse_run, text).render() == [
        "LanguageError: 2 problems",
        'line 1, column 1: `=` is missing after udfName → write udfName="chat"',
        '    udfName "chat"',
        "    ^^^^^^^",
        "line 3, column 1: localModelDir has no value → "
        'write localModelDir="…" (a value with spaces, commas or = takes quotes)',
        "    localModelDir=",
        "    ^^^^^^^^^^^^^",
    ]


def test_many_problems_are_shown_as_far_as_a_page_goes():
    text = "\n".join("x" for _ in range(30))
    error = problem_error(text, [(Span.of(text, 2 * i, 2 * i + 1), f"what {i}", "do") for i in range(30)])
    assert len(error.render()) == 2 + 3 * SHOWN
    assert error.render()[-1] == f"… and {30 - SHOWN} more"
    assert "(+29 more: line 2: what 1;" in error.what
    assert error.what.endswith(f"line {SHOWN}: what {SHOWN - 1}; … and {30 - SHOWN} more)"), "as many as the cell shows"


@given(st.text(alphabet="ab=\"'`;, \n-!{}$，＝“”（run comandLM.whes", max_size=40))
def test_any_text_is_read_or_refused_in_words(text):
    for parse in (parse_run, parse_setup, parse_script):
        with contextlib.suppress(LanguageError):
            parse(text)


def test_a_variable_that_no_reference_could_name_is_refused():
    assert failure(parse_script, "set 1a='x';").what == "`1a` is not a name for a variable"


def test_keys_in_a_script_are_sent_to_a_cell_of_their_own():
    assert "below %%byzerllm run" in failure(parse_script, 'action="infer"').do
