"""What is named like a secret is never shown; it may come from the environment."""

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.infer_parameters import InferParameters
from byzerllm_adapters.parameters import ParameterError, as_strings, notes, read
from byzerllm_adapters.secret_values import hidden, is_secret, known_here, reveal
from byzerllm_magics.language import parse_run
from byzerllm_magics.parameters import at_the_caret

RAW = {"udfName": "chat", "pretrainedModelType": "saas/openai"}
SECRET = "sk-1234"


@pytest.mark.parametrize(
    "name",
    ["saas.api_key", "apiKey", "saas.str.apikey", "hub_token", "access.token", "SECRET_ID", "db_password", "keys"],
)
def test_a_name_tells_a_secret(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", ["max_new_tokens", "tokenizer_path", "keepPartitionNum", "keyboard", "udfName"])
def test_a_name_that_only_looks_like_one_does_not(name):
    assert not is_secret(name)


@pytest.mark.parametrize("key", ["saas.api_key", "saas.secret_id", "backend.hf_token"])
def test_it_is_in_no_repr_and_no_note_but_reaches_the_adapter(key):
    raw = {**RAW, key: SECRET, "devices": "0"}
    parameters = read(InferParameters, raw)
    assert SECRET not in f"{parameters!r} {parameters} {notes(parameters)}"
    assert "***" in repr(parameters)
    assert as_strings(parameters, raw)[key] == SECRET


def test_it_is_in_no_error_not_even_in_the_line_that_is_shown():
    text = f'pretrainedModelType="saas/openai" and udfName="my chat" and saas.api_key="{SECRET}"'
    run = parse_run(text)
    with pytest.raises(ParameterError) as caught:
        read(InferParameters, {a.key: a.value for a in run.parameters})
    shown = "\n".join(at_the_caret(caught.value, text, run).render())
    assert SECRET not in shown
    assert 'udfName="my chat" and saas.api_key=***' in shown


def test_a_wrong_one_is_not_quoted():
    with pytest.raises(ParameterError) as caught:
        read(InferParameters, {**RAW, "saas.int.api_key": SECRET, "saas.tokn.api_key": SECRET, "api_key": SECRET})
    assert SECRET not in str(caught.value)


def test_one_from_the_environment_is_read_where_it_is_used(monkeypatch):
    monkeypatch.setenv("MY_KEY", SECRET)
    assert reveal("env:MY_KEY", "saas.api_key") == SECRET
    assert reveal(SECRET, "saas.api_key") == SECRET
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ByzerError, match=r"saas\.api_key is to come from the environment, which has no MY_KEY"):
        reveal("env:MY_KEY", "saas.api_key")


def test_what_the_notebooks_environment_has_is_taken_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    keys = {"saas.api_key": "env:MY_KEY", "hubToken": "env:OF_THE_REPLICA", "udfName": "env:MY_KEY"}
    assert known_here(keys) == keys | {"saas.api_key": SECRET}


def test_a_secret_is_masked_wherever_it_stands() -> None:
    assert hidden(f"a {SECRET} and {SECRET}x", [SECRET, "ab"]) == "a *** and ***x", "two characters hide nothing"
