"""`${name}`: inside values only, once, and an error for what is undefined."""

import datetime

import pytest

from byzerllm_magics.language import LanguageError, parse_run, parse_script, parse_setup, substitute

VARIABLES = {"dir": "models/tiny", "tricky": "${dir} {x}", "n": "2"}


def test_values_are_replaced_and_keys_are_not():
    run = substitute(parse_run('${dir}="${dir}/a" and b="${ n }${n}"'), VARIABLES.get)
    assert [(a.key, a.value) for a in run.parameters] == [("${dir}", "models/tiny/a"), ("b", "22")]


def test_what_comes_in_is_never_expanded_again():
    (parameter,) = substitute(parse_run("a='${tricky}'"), VARIABLES.get).parameters
    assert parameter.value == "${dir} {x}"


def test_braces_and_dollars_that_are_no_reference_stay():
    (parameter,) = substitute(parse_run("a='''{\"a\": {}} $x ${1+1} {dir}'''"), VARIABLES.get).parameters
    assert parameter.value == '{"a": {}} $x ${1+1} {dir}'


def test_every_statement_with_values_is_replaced():
    assert substitute(parse_setup("num_gpus=${n}"), VARIABLES.get).settings[0].value == "2"
    variable, command = parse_script('set x="${n}"; !byzerllm model remove "chat"')
    assert substitute(variable, VARIABLES.get).value == "2"
    assert substitute(command, VARIABLES.get) == command


def test_a_path_and_the_options_of_tables_are_replaced():
    script = "load text.`${dir}/*` where a='${n}' as t; run t as TableRepartition.`` where partitionNum='${n}' as u"
    load, cut = (substitute(statement, VARIABLES.get) for statement in parse_script(script))
    assert (load.path, load.options[0].value) == ("models/tiny/*", "2")
    assert cut.options[0].value == "2"


def test_a_select_is_left_to_the_sql_parser():
    (select,) = parse_script("select '${dir}', '${undefined}' as t")
    assert substitute(select, VARIABLES.get) is select


def test_an_undefined_name_in_a_path_is_placed():
    text = "load text.`/${dri}/*` as t"
    with pytest.raises(LanguageError) as caught:
        substitute(parse_script(text)[0], VARIABLES.get, names=VARIABLES, text=text)
    assert caught.value.where.startswith("line 1, column 13:")


def test_an_undefined_name_is_an_error_at_its_place_with_the_nearest_name():
    text = 'a="1"\nand b="x ${dri}"'
    with pytest.raises(LanguageError) as caught:
        substitute(parse_run(text), VARIABLES.get, names=VARIABLES, text=text)
    assert caught.value.what == "${dri} is not defined"
    assert caught.value.render()[1:4] == ["line 2, column 10:", '    and b="x ${dri}"', "             ^^^^^^"]
    assert "did you mean ${dir}?" in caught.value.do


def test_all_undefined_names_are_named():
    with pytest.raises(LanguageError, match=r"\$\{p\} is not defined \(\+1 more: line 2: \$\{q\} is not defined\)"):
        substitute(parse_run("a='${p}'\nb='${q}'"), VARIABLES.get)


@pytest.mark.parametrize(
    ("held", "kind"), [([1], "a list"), (datetime.date(2024, 1, 1), "a date"), (object(), "an object")]
)
def test_a_variable_that_no_value_can_hold_is_named_with_its_kind(held, kind):
    with pytest.raises(LanguageError) as caught:
        substitute(parse_run("a='${x}'"), VARIABLES.get, variable={"x": held}.get)
    assert caught.value.what == f"${{x}} is {kind}; only text and numbers can be put into a value"
