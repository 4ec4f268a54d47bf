"""Conversations and texts that are encoded together come out as each by itself."""

import random

import pytest

from byzerllm_adapters import conversations as module
from byzerllm_adapters.contract import Message
from byzerllm_adapters.conversations import (
    Encoded,
    encode_conversation,
    encode_conversations,
    encode_row,
    encode_rows,
    encode_text,
    encode_texts,
)
from byzerllm_adapters.errors import ByzerError

ROWS = 1000
WORDS = ["Hello", "there", "quick", "brown", "天气", "公园", "</s>", "\n", "0123", "é", "🙂", "[INST]", "  "]


def conversations(count):
    """Conversations of one to three questions, some of which no template or mask can take."""
    chance = random.Random(3)

    def text():
        return " ".join(chance.choices(WORDS, k=chance.randint(1, 12))) + "."

    made = []
    for number in range(count):
        messages = [Message(role="system", content=text())] if chance.random() < 0.3 else []
        for _ in range(chance.randint(1, 3)):
            messages += [Message(role="user", content=text()), Message(role="assistant", content=text())]
        if number % 50 == 7:
            messages = messages[-1:]  # an answer first
        elif number % 50 == 9:
            messages = messages[:-1][-1:]  # no answer
        elif number % 50 == 11:
            messages.append(Message(role="critic", content=text()))
        made.append(messages)
    return made


def alone(encode):
    try:
        return encode()
    except ByzerError as error:
        return str(error)


@pytest.mark.parametrize(
    ("kind", "template"), [("bytes", "chatml"), ("bytes", "default"), ("metaspace", "llama2"), ("metaspace", "inst")]
)
def test_a_thousand_conversations_together_are_each_by_itself(tokenizers, kind, template):
    tokenizer = tokenizers(kind, template)
    rows = conversations(ROWS)
    together = encode_conversations(tokenizer, rows, 64)
    assert [str(each) if isinstance(each, ByzerError) else each for each in together] == [
        alone(lambda row=row: encode_conversation(tokenizer, row, 64)) for row in rows
    ]
    assert sum(isinstance(each, Encoded) for each in together) > ROWS / 2
    assert any(isinstance(each, ByzerError) for each in together)


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_a_thousand_texts_together_are_each_by_itself_and_as_the_tokenizer_says(tokenizers, kind):
    tokenizer = tokenizers(kind)
    texts = [message["content"] for messages in conversations(ROWS) for message in messages][:ROWS]
    together = encode_texts(tokenizer, texts)
    assert together == [encode_text(tokenizer, text) for text in texts]
    assert [each.ids for each in together] == [[*tokenizer.encode(text), tokenizer.eos_token_id] for text in texts]


def test_nothing_together_is_nothing(tokenizers):
    assert encode_conversations(tokenizers(), []) == []
    assert encode_texts(tokenizers(), []) == []


def test_a_text_that_ends_with_the_end_token_gets_no_second_one(tokenizers):
    tokenizer = tokenizers()
    assert encode_text(tokenizer, "Hello</s>") == encode_text(tokenizer, "Hello")


def test_what_a_tokenizers_file_says_of_truncation_and_padding_does_not_matter(tokenizers):
    tokenizer = tokenizers("bytes", "chatml", eos_token="</s>")
    expected = encode_texts(tokenizer, ["Hello there", "Hello " * 50])
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding()
    assert encode_texts(tokenizer, ["Hello there", "Hello " * 50]) == expected


def test_a_slow_tokenizer_serves_too(tokenizers):
    """One without a fast backend, as models with code of their own bring along."""
    tokenizer = tokenizers("bytes", "chatml")

    class Slow:
        is_fast = False

        def __getattr__(self, name):
            return getattr(tokenizer, name)

    rows = conversations(20)
    ours, theirs = encode_conversations(Slow(), rows), encode_conversations(tokenizer, rows)
    assert [str(each) for each in ours] == [str(each) for each in theirs]


def test_rows_together_are_each_by_itself_and_an_error_stays_in_its_place(tokenizers):
    tokenizer, unreadable = tokenizers(), ByzerError("not JSON")
    rows = [
        {"instruction": "Hello", "output": "there."},
        unreadable,
        {"instruction": "Hello"},
        {"instruction": "Hello", "output": "there.", "tools": "no list"},
        {"instruction": "quick", "output": "brown."},
    ]
    together = encode_rows(tokenizer, rows, "alpaca", 20)
    assert together[1] is unreadable
    assert [isinstance(each, ByzerError) for each in together] == [False, True, True, True, False]
    for row, each in zip(rows, together, strict=True):
        if row is not unreadable:
            found = alone(lambda row=row: encode_row(tokenizer, row, "alpaca", 20))
            assert found == (str(each) if isinstance(each, ByzerError) else each)
    texts = encode_rows(tokenizer, [{"text": "Hello"}, {"text": " "}, unreadable], "text")
    assert texts[0] == encode_text(tokenizer, "Hello")
    assert [str(each) for each in texts[1:]] == ["text is empty or not text", "not JSON"]


@pytest.mark.parametrize("template", ["default", "chatml", "llama3", "inst", "llama2"])
def test_masks_do_not_depend_on_how_the_place_behind_an_end_token_is_found(tokenizers, monkeypatch, template):
    tokenizer, rows = tokenizers("bytes", template), conversations(200)
    found = encode_conversations(tokenizer, rows)
    monkeypatch.setattr(module, "_behind_end", lambda *_: None)
    assert [str(each) for each in encode_conversations(tokenizer, rows)] == [str(each) for each in found]
