from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzerllm_adapters.engines.decoding import HALF, Decoder

SENTENCE = "Hello, 你好，世界 🙂! The  fox.\n"


def add_all(decoder, ids):
    return [decoder.add(token) for token in ids]


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_a_text_arrives_whole_and_never_with_half_a_character(tokenizers, kind):
    tokenizer = tokenizers(kind)
    ids = tokenizer.encode(SENTENCE, add_special_tokens=False)
    seen = add_all(Decoder(tokenizer), ids)
    assert seen[-1] == SENTENCE
    assert all(SENTENCE.startswith(text) for text in seen)
    assert len(set(seen)) > 10


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_ids_decode_to_what_the_tokenizer_says_of_them_together(tokenizers, data):
    tokenizer = tokenizers("bytes")
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), min_size=1, max_size=12))
    shown = add_all(Decoder(tokenizer), ids)[-1]
    whole = tokenizer.decode(ids, skip_special_tokens=True).replace(HALF, "")
    assert whole.startswith(shown)


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_was_shown_stays_and_no_half_character_is(tokenizers, kind, data):
    tokenizer = tokenizers(kind)
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), min_size=2, max_size=12))
    seen = add_all(Decoder(tokenizer), ids)
    assert HALF not in "".join(seen)
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))


def test_special_tokens_are_not_text(tokenizers):
    tokenizer = tokenizers("bytes")
    ids = tokenizer.encode("<s>Hello</s>there", add_special_tokens=False)
    assert add_all(Decoder(tokenizer), ids)[-1] == "Hellothere"


def test_the_white_space_of_the_template_is_not_shown(tokenizers):
    tokenizer = tokenizers("bytes")
    ids = tokenizer.encode(" \n Hello there ", add_special_tokens=False)
    seen = add_all(Decoder(tokenizer, lead=" \n ", gap=" "), ids)
    assert seen[0] == ""
    assert seen[-1] == "Hello there"
    assert not any(text.startswith((" ", "\n")) for text in seen)
