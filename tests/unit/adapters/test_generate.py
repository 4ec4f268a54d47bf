import threading
import time

import pytest
import torch

from byzerllm_adapters.engines import generate as engine
from byzerllm_adapters.engines.generate import Sampling, generate
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.templates import Frame

PLAIN = Frame("", "", None, None)


@pytest.fixture
def tokenizer(tokenizers):
    return tokenizers("bytes")


@pytest.fixture
def model(make_model):
    return make_model(512)


def greedy(**options):
    return Sampling(temperature=0, **options)


def reference(model, ids, new, **options):
    prompt = torch.tensor([ids])
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=new,
        do_sample=False,
        pad_token_id=2,
        **options,
    )
    return out[0, len(ids) :].tolist()


def wait_until(fact, seconds=10):
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.01)


def generating():
    return [thread for thread in threading.enumerate() if thread.name == "generate"]


@pytest.mark.parametrize("seed", range(5))
def test_a_streamed_greedy_answer_equals_generate(model, tokenizer, seed):
    ids = torch.randint(10, 500, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
    answers = list(generate(model, tokenizer, ids, greedy(max_new_tokens=24), PLAIN))
    expected = reference(model, ids, 24)
    text, extra = answers[-1]
    whole = tokenizer.decode(expected, skip_special_tokens=True).replace("\N{REPLACEMENT CHARACTER}", "")
    assert whole.startswith(text)
    assert len(whole) - len(text) <= 2  # at most the start of a character that was cut off
    assert extra["generated_tokens_count"] == len(expected)
    assert extra["input_tokens_count"] == 6
    assert extra["finish_reason"] == ("stop" if expected[-1] == 2 else "length")
    assert 0 < extra["first_token_time"] <= extra["time_cost"]
    assert len(answers) > 3


def test_an_answer_stops_at_the_end_of_turn_token_of_the_template(model, tokenizer):
    ids = [20, 30, 40]
    expected = reference(model, ids, 12)
    end = next(token for token in expected[3:] if token not in expected[:3])
    place = expected.index(end)
    *_, (text, extra) = generate(model, tokenizer, ids, greedy(max_new_tokens=12), Frame("", "", "x", end))
    assert extra["generated_tokens_count"] == place + 1
    assert extra["finish_reason"] == "stop"
    assert tokenizer.decode(expected[:place], skip_special_tokens=True).startswith(text)


def test_lengths_are_capped_by_request_and_by_the_models_context(model, tokenizer):
    ids = [20] * 100

    def count(sampling):
        *_, (_, extra) = generate(model, tokenizer, ids, sampling, PLAIN)
        assert extra["finish_reason"] == "length"
        return extra["generated_tokens_count"]

    model.generation_config.eos_token_id = None
    tokenizer.eos_token_id, kept = None, tokenizer.eos_token_id
    try:
        assert count(greedy()) == 28  # 128 positions
        assert count(greedy(max_length=110)) == 10
        assert count(greedy(max_new_tokens=3)) == 3
        assert count(greedy(max_length=110, max_new_tokens=50)) == 10
    finally:
        tokenizer.eos_token_id = kept


def test_a_prompt_without_room_for_an_answer_is_refused_with_both_lengths(model, tokenizer):
    with pytest.raises(ByzerError, match="prompt has 128 tokens, and the model's context is 128"):
        generate(model, tokenizer, [20] * 128, greedy(), PLAIN)
    with pytest.raises(ByzerError, match="prompt has 9 tokens, and max_length is 8"):
        generate(model, tokenizer, [20] * 9, greedy(max_length=8), PLAIN)
    assert not generating()


def test_the_first_token_does_not_wait_for_the_rest(make_model, tokenizer, monkeypatch):
    model = make_model(512, max_position_embeddings=4096)
    stream = generate(model, tokenizer, [20, 30], greedy(max_length=4000), PLAIN)
    text, extra = next(stream)
    assert extra["generated_tokens_count"] < 10
    assert "finish_reason" not in extra
    assert text
    stream.close()


def endless(model, tokenizer, monkeypatch):
    """A stream of thousands of tokens that nothing ends but a cancel."""
    monkeypatch.setattr(engine, "stops_of", lambda *_: [])
    model.generation_config.eos_token_id = None
    return generate(model, tokenizer, [20, 30], greedy(max_length=100_000), PLAIN)


def test_close_stops_within_a_token_and_the_stream_says_so(make_model, tokenizer, monkeypatch):
    stream = endless(make_model(512, max_position_embeddings=100_000), tokenizer, monkeypatch)
    next(stream)
    stream.close()
    *_, (_, extra) = stream
    assert extra["finish_reason"] == "cancelled"
    assert extra["generated_tokens_count"] < 2000
    wait_until(lambda: not generating(), 2)


def test_a_dropped_stream_frees_its_thread(make_model, tokenizer, monkeypatch):
    stream = endless(make_model(512, max_position_embeddings=100_000), tokenizer, monkeypatch)
    for _ in stream:
        break
    del stream
    wait_until(lambda: not generating(), 2)


def test_a_second_conversation_waits_for_the_first_and_may_give_up(make_model, tokenizer, monkeypatch):
    model = make_model(512, max_position_embeddings=100_000)
    first, second = endless(model, tokenizer, monkeypatch), endless(model, tokenizer, monkeypatch)
    third = endless(model, tokenizer, monkeypatch)
    next(first)
    third.close()
    first.close()
    assert next(second)
    second.close()
    assert [extra["generated_tokens_count"] for _, extra in third] == [0]
    wait_until(lambda: not generating(), 2)


def test_what_goes_wrong_in_the_thread_is_raised_to_the_reader(model, tokenizer, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "forward", broken)
    stream = generate(model, tokenizer, [20, 30], greedy(), PLAIN)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(stream)
    wait_until(lambda: not generating())


def test_sampling_takes_effect(model, tokenizer):
    def answers(**options):
        return {
            str(generate(model, tokenizer, [20, 30], Sampling(max_new_tokens=8, **options), PLAIN)) for _ in range(6)
        }

    assert len(answers(temperature=0)) == 1
    assert len(answers(temperature=5.0, top_p=1.0)) > 1
    assert answers(temperature=5.0, top_p=1.0, top_k=1) == answers(temperature=0)
    assert answers(temperature=5.0, top_p=1e-6) == answers(temperature=0)


def test_a_folders_own_generation_settings_do_not_disturb_greedy(model, tokenizer, recwarn):
    before = str(generate(model, tokenizer, [20, 30], greedy(max_new_tokens=8), PLAIN))
    model.generation_config.update(do_sample=True, temperature=3.0, top_p=0.5, top_k=5, num_beams=2, use_cache=False)
    assert str(generate(model, tokenizer, [20, 30], greedy(max_new_tokens=8), PLAIN)) == before
    assert not recwarn.list


def test_a_request_may_write_its_numbers_as_texts():
    asked = Sampling.of(max_length="100", top_p="0.5", temperature="0", max_new_tokens=7.0, top_k="3")
    assert asked == Sampling(max_length=100, top_p=0.5, temperature=0, max_new_tokens=7, top_k=3)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"image": "x", "foo": 1}, "does not know generation.foo"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_p": "much"}, "top_p is 'much', not a number"),
        ({"temperature": "nan"}, "temperature is nan"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": 1.5}, "not a whole number"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": None}, "top_k is None, not a number"),
    ],
)
def test_a_parameter_that_is_unknown_or_out_of_range_is_named(request_, reason):
    with pytest.raises(ByzerError, match=reason):
        Sampling.of(**({"max_length": 100, "top_p": 0.9, "temperature": 0.1} | request_))


def test_what_only_an_image_model_takes_is_left_out_and_named(model, tokenizer):
    sampling = Sampling.of(max_length=100, top_p=1, temperature=0, max_new_tokens=3, image="https://example.org/x.png")
    *_, (_, extra) = generate(model, tokenizer, [20, 30], sampling, PLAIN)
    assert extra["ignored"] == ["generation.image"]
