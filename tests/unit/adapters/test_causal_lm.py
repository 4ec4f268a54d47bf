import types

import pytest

from byzerllm_adapters import causal_lm, llama2
from byzerllm_adapters.conversations import encode_prompt
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.templates import frame


@pytest.fixture(scope="module")
def served(model_dir):
    return causal_lm.init_model(str(model_dir), {"udfName": "chat"}, {"num_gpus": "1"})


def test_init_model_binds_stream_chat_as_the_contract_says(served):
    model, tokenizer = served
    assert isinstance(model.stream_chat, types.MethodType)
    assert model.stream_chat.__self__ is model
    assert tokenizer.chat_template == causal_lm.DEFAULT_TEMPLATE


def test_an_answer_prints_as_its_text_and_tells_its_facts(served):
    model, tokenizer = served
    response = model.stream_chat(tokenizer, "Hello", [], temperature=0.0, max_length=60)
    again = list(model.stream_chat(tokenizer, "Hello", temperature=0.0, max_length=60))
    assert str(response) == again[-1][0]
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": "Hello"}])
    assert again[-1][1]["input_tokens_count"] == len(prompt)


def test_the_history_is_part_of_the_prompt(served):
    model, tokenizer = served
    his = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"}]
    *_, (_, extra) = model.stream_chat(tokenizer, "and?", his, max_new_tokens=1)
    assert extra["input_tokens_count"] == len(encode_prompt(tokenizer, [*his, {"role": "user", "content": "and?"}]))


def test_an_empty_question_and_chinese_are_answered(served):
    model, tokenizer = served
    assert list(model.stream_chat(tokenizer, "", max_new_tokens=2))
    assert list(model.stream_chat(tokenizer, "你好", max_new_tokens=2))


def test_a_request_that_cannot_be_is_refused_at_once(served):
    model, tokenizer = served
    with pytest.raises(ByzerError, match=r"generation\.picture"):
        model.stream_chat(tokenizer, "Hello", picture="x")
    with pytest.raises(ByzerError, match="template refuses"):
        model.stream_chat(tokenizer, "Hello", [{"role": "robot", "content": "x"}])
    with pytest.raises(ByzerError, match="model's context is 128"):
        model.stream_chat(tokenizer, "Hello " * 200)


def test_llama2_serves_with_its_own_template(model_dir):
    model, tokenizer = llama2.init_model(str(model_dir))
    assert tokenizer.chat_template == llama2.DEFAULT_TEMPLATE
    assert frame(tokenizer).gap == " "
    assert str(model.stream_chat(tokenizer, "Hello", temperature=0, max_new_tokens=4)) is not None


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"trust_remote_code": "perhaps"}, "trust_remote_code is 'perhaps'"),
        ({"dtype": "bf16"}, "unknown dtype 'bf16'"),
        ({"quatization": "5"}, "unknown quantization '5'"),
        ({"infer.bool.load_in_4bit": "4"}, "load_in_4bit is '4'"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(model_dir, params, reason):
    with pytest.raises(ByzerError, match=reason):
        causal_lm.init_model(str(model_dir), params)


@pytest.mark.parametrize("params", [{"quatization": "nf4"}, {"quantization": "4"}, {"infer.load_in_4bit": "1"}])
def test_a_model_is_served_quantised(model_dir, params):
    model, tokenizer = causal_lm.init_model(str(model_dir), params)
    assert model.is_quantized
    assert list(model.stream_chat(tokenizer, "Hello", max_new_tokens=2))
