"""A secret's value is in no error and no progress line, however broken the cell is."""

import pytest

from byzerllm_magics.language import LanguageError, parse_run, parse_script
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
