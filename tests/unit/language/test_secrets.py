"""A secret's value is in no error and no progress line, however broken the cell is."""

import pytest

from byzerllm_magics.language import LanguageError, parse_run, parse_script, parse_setup
from byzerllm_magics.language.secrets import without_secrets
from byzerllm_magics.script import title

SECRET = "sk-12345"


@pytest.mark.parametrize(
    "written",
    [
        f'saas.api_key="{SECRET}"',
        f"`saas.api_key` = '{SECRET}'",
        f"saas.api_key='''\n{SECRET}\n'''",
        f'saas.api_key="{SECRET}',
        f"saas.api_key={SECRET}",
        f"hubToken＝“{SECRET}”",
        f"password = '''{SECRET}",
    ],
)
def test_every_way_to_write_a_secret_is_starred_and_places_stay(written):
    text = f'run command as LLM.`` where {written}\nand udfName="chat";'
    shown = without_secrets(text)
    assert SECRET not in shown
    assert len(shown) == len(text)
    assert shown.count("\n") == text.count("\n")


def test_other_values_are_shown():
    text = "tokenizer_path=\"a/b\" and max_new_tokens=\"7\" and name='''x'''"
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "cell",
    [
        f'saas.api_key="{SECRET}" nonsense',
        f'saas.api_key="{SECRET}',
        f"saas.api_key={SECRET} x",
        f"saas.api_key {SECRET}",
    ],
)
def test_a_cell_that_cannot_be_read_does_not_show_it(cell):
    for read in (parse_run, lambda cell: parse_script(f"run command as LLM.`` where {cell}")):
        with pytest.raises(LanguageError) as caught:
            read(cell)
        assert SECRET not in str(caught.value)


def test_progress_does_not_show_it():
    text = f'run command as LLM.`` where saas.api_key="{SECRET}" and udfName="chat";'
    [statement] = parse_script(text)
    assert SECRET not in title(statement, text)


MALFORMED = [
    f'saas.api_key=("{SECRET}") and action="infer"',
    f'saas.api_key=["{SECRET}"]',
    f'saas.api_key=[\n"x",\n"{SECRET}"]',
    f'saas.api_key={{"a":"{SECRET}"}}',
    f'saas.api_key=f"{SECRET}"',
    f'saas.api_key=="{SECRET}"',
    f'saas.api_key=\n="{SECRET}"',
    f'saas.api_key:"{SECRET}"',
    f"saas.api_key: {SECRET}",
    f"saas.api_key={SECRET}== x",
    f"saas.api_key=my {SECRET} x",
    f"saas.api_key;={SECRET}",
    f'"saas.api_key"="{SECRET}"',
    f'saas.api_key "=" "{SECRET}"',
    f'saas.api_key="x""{SECRET}"',
    f'saas.api_key="x" "{SECRET}" and b "2"',
    f'saas.api_key="x", "{SECRET}"',
    f'name="a saas.api_key="{SECRET}" b',
    f'saas.api_kee="{SECRET}" nonsense',
    f'saas.api_key="x" and saas.api_key="{SECRET}" c',
    f"config='''{{\"api_key\": \"{SECRET}\"}}''' nonsense",
    f'"api_key={SECRET}" nonsense',
]


@pytest.mark.parametrize("written", MALFORMED)
def test_a_malformed_value_shows_neither_in_the_line_nor_in_the_words_of_an_error(written):
    readings = (
        (parse_run, written),
        (parse_script, f"run command as LLM.`` where {written};"),
        (parse_script, f"set a='1';\nset {written} x;\nselect 'a"),
        (parse_setup, written),
        (parse_script, f"!byzerllm setup {written};"),
    )
    refused = 0
    for read, text in readings:
        try:
            read(text)
        except LanguageError as error:
            refused += 1
            shown = "\n".join([str(error), *error.render(), repr(error.problems)])
            assert SECRET not in shown, text
    assert refused


def test_a_quoted_setting_of_a_secret_that_lacks_its_sign_is_not_quoted():
    with pytest.raises(LanguageError) as caught:
        parse_script(f'!byzerllm setup "hub_token {SECRET}";')
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "select key from t where kind is true\norder by key;\nselect 'x' as a from u as v;",
        "select 'the key to life', 'b' as a from t as u;",
        'saas.api_key=***\nand udfName="chat"',
    ],
)
def test_what_only_looks_like_a_secrets_value_is_shown(text):
    assert without_secrets(text) == text


def test_what_follows_a_whole_value_is_shown():
    text = f'saas.api_key="{SECRET}" and udfName="my chat", name=\'x\'\nand b=`c`'
    assert without_secrets(text) == text.replace(f'"{SECRET}"', "*" * (len(SECRET) + 2))


def test_a_text_of_many_quotes_is_starred_at_once():
    text = 'api_key="' + '\\"a' * 20_000 + "\n" + "'\"" * 20_000
    assert len(without_secrets(text)) == len(text)
