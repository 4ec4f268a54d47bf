"""MOSS' own turn markers: written once, whether a question comes or a whole prompt, and learned to the end token."""

from __future__ import annotations

from typing import Any

import pytest

from byzerllm_adapters.conversations import encode_conversation, encode_prompt, encode_written_prompt
from byzerllm_adapters.moss import META_INSTRUCTION, MossConfig, init_model, is_prompt
from tests.unit.adapters.test_golden import FOLDERS

QUESTION = [{"role": "user", "content": "你好"}]
PROMPT = META_INSTRUCTION + "<|Human|>: 你好<eoh>\n<|MOSS|>:"


@pytest.fixture(scope="module")
def moss() -> tuple[Any, Any]:
    return init_model(str(FOLDERS["moss"]), {"dtype": "float32"})


def test_a_question_becomes_the_prompt_that_the_document_writes(moss: tuple[Any, Any]) -> None:
    _, tokenizer = moss
    ids = encode_prompt(tokenizer, QUESTION)
    assert tokenizer.decode(ids) == PROMPT
    assert ids == encode_written_prompt(tokenizer, PROMPT)
    for mark in ("<|Human|>", "<eoh>", "<|MOSS|>"):
        assert ids.count(tokenizer.convert_tokens_to_ids(mark)) == 1


def test_a_prompt_that_is_written_out_is_not_put_into_another_one(
    moss: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = moss
    asked: list[list[int]] = []
    from byzerllm_adapters import causal_lm

    monkeypatch.setattr(causal_lm, "generate", lambda _model, _tokenizer, ids, *_: asked.append(ids))
    model.stream_chat(tokenizer, "你好", [])
    model.stream_chat(tokenizer, PROMPT, [])
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    ("text", "written"), [(PROMPT, True), ("<|MOSS|>: who is that?", False), ("What is <|Human|>:?", False)]
)
def test_only_a_whole_prompt_is_one(text: str, written: bool) -> None:
    assert is_prompt(text) == written


def test_a_system_message_takes_the_meta_instructions_place(moss: tuple[Any, Any]) -> None:
    _, tokenizer = moss
    text = tokenizer.decode(encode_prompt(tokenizer, [{"role": "system", "content": "be brief"}, *QUESTION]))
    assert text == "be brief\n<|Human|>: 你好<eoh>\n<|MOSS|>:"


def test_an_answer_is_learned_with_its_end_token(moss: tuple[Any, Any]) -> None:
    _, tokenizer = moss
    encoded = encode_conversation(tokenizer, [*QUESTION, {"role": "assistant", "content": "hi"}])
    learned = [token for token, counts in zip(encoded.ids, encoded.mask, strict=True) if counts]
    assert tokenizer.decode(learned) == " hi<eom>"


def test_its_sizes_are_those_of_the_16b_model() -> None:
    config = MossConfig()
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (107008, 6144, 34)
