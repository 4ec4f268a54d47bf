"""The short way to a rendering gives what transformers' own gives."""

import random

import pytest
from jinja2.exceptions import TemplateError

from byzerllm_adapters import rendering
from byzerllm_adapters.templates import template_of

WORDS = ["Hello", "天气", "</s>", "\n", " ", "{{ 1 + 1 }}", "<think>", "🙂", "[INST]"]


def written(render, *arguments, spans):
    try:
        return render(*arguments, spans=spans)
    except TemplateError as error:
        return str(error)


@pytest.mark.parametrize("spans", [False, True])
@pytest.mark.parametrize("template", ["chatml", "default", "llama2", "inst", "llama3"])
def test_a_plain_conversation_is_rendered_alike_both_ways(tokenizers, template, spans):
    tokenizer, chance = tokenizers("bytes", template), random.Random(5)
    for _ in range(50):
        messages = [
            {
                "role": chance.choice(["system", "user", "assistant", "critic"]),
                "content": "".join(chance.choices(WORDS, k=9)),
            }
            for _ in range(chance.randint(1, 5))
        ]
        assert rendering.is_plain(messages)
        arguments = template_of(tokenizer), messages, None, chance.random() < 0.5, tokenizer.special_tokens_map
        ours, theirs = (written(way, *arguments, spans=spans) for way in (rendering.render_plain, rendering.render_any))
        assert ours == theirs


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "a", "tool_calls": []},
        {"role": "assistant", "content": "a", "reasoning_content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "user"},
    ],
)
def test_what_transformers_would_convert_is_not_plain(message):
    assert not rendering.is_plain([{"role": "user", "content": "q"}, message])
