"""Answers that are generated together are those that are generated alone."""

import threading
import time

import pytest
import torch

from byzerllm_adapters import causal_lm
from byzerllm_adapters.engines import batch
from byzerllm_adapters.engines.batch import generate_batch
from byzerllm_adapters.engines.generate import Sampling, generate
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.templates import Frame

pytestmark = pytest.mark.slow

PLAIN = Frame("", "", None, None)


@pytest.fixture
def tokenizer(tokenizers):
    return tokenizers("bytes")


@pytest.fixture
def model(make_model):
    return make_model(512)


def prompts(count, longest=30):
    random = torch.Generator().manual_seed(3)
    lengths = torch.randint(2, longest, (count,), generator=random).tolist()
    return [torch.randint(10, 500, (n,), generator=random).tolist() for n in lengths]


def alone(model, tokenizer, ids, sampling):
    *_, last = generate(model, tokenizer, ids, sampling, PLAIN)
    return last


@pytest.mark.parametrize("new", [12, None], ids=["limited", "to the end of the context"])
def test_greedy_answers_equal_those_generated_alone_in_their_order(model, tokenizer, new, monkeypatch):
    monkeypatch.setattr(batch, "ROWS", 4)
    asked, sampling = prompts(11), Sampling(temperature=0, max_new_tokens=new)
    together = generate_batch(model, tokenizer, asked, sampling, PLAIN, cancelled=threading.Event())
    for ids, (text, extra) in zip(asked, together, strict=True):
        expected, facts = alone(model, tokenizer, ids, sampling)
        assert text == expected
        for name in ("input_tokens_count", "generated_tokens_count", "finish_reason"):
            assert extra[name] == facts[name]
        assert extra["input_tokens_count"] + extra["generated_tokens_count"] <= 128
        assert 0 < extra["first_token_time"] <= extra["time_cost"]


def test_a_prompt_without_room_gives_its_error_and_the_others_their_answers(model, tokenizer):
    first, last = prompts(2)
    sampling = Sampling(temperature=0, max_new_tokens=4)
    found = generate_batch(model, tokenizer, [first, [9] * 128, last], sampling, PLAIN, cancelled=threading.Event())
    assert isinstance(found[1], ByzerError)
    assert found[0][0] == alone(model, tokenizer, first, sampling)[0]
    assert found[2][0] == alone(model, tokenizer, last, sampling)[0]


def test_cancelling_ends_it_within_a_token_and_keeps_what_there_is(make_model, tokenizer):
    model = make_model(512, max_position_embeddings=100_000)
    cancelled = threading.Event()
    threading.Timer(0.5, cancelled.set).start()
    begun = time.monotonic()
    sampling = Sampling(temperature=0, max_length=100_000)
    found = generate_batch(model, tokenizer, [[5, 6, 7]], sampling, PLAIN, cancelled=cancelled)
    assert time.monotonic() - begun < 20
    [(text, extra)] = found
    assert extra["finish_reason"] in ("cancelled", "stop")
    assert bool(text) == (extra["generated_tokens_count"] > 1)


def test_chat_many_gives_each_request_its_own_sampling_and_error(model_dir):
    model, tokenizer = causal_lm.init_model(str(model_dir))
    requests = [
        {"ins": "Hello", "temperature": 0, "max_new_tokens": 5},
        {"ins": "Hello", "temperature": 0, "max_new_tokens": 9},
        {"ins": "Hello", "nonsense": 1},
        {
            "ins": "Hi",
            "his": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "temperature": 0,
        },
    ]
    found = model.chat_many(tokenizer, [dict(request) for request in requests], threading.Event())
    for place in (0, 1, 3):
        options = dict(requests[place])
        *_, (text, extra) = model.stream_chat(tokenizer, options.pop("ins"), options.pop("his", []), **options)
        assert found[place][0] == text
        assert found[place][1]["generated_tokens_count"] == extra["generated_tokens_count"]
    assert "generation.nonsense" in str(found[2])
