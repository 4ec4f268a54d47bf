"""What the engine is given in serving is what comes before the same answer in training."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from byzerllm_adapters import causal_lm
from byzerllm_adapters.conversations import encode_conversation
from byzerllm_adapters.templates import fix_roles
from tests.unit.adapters.conftest import TEMPLATES
from tests.unit.adapters.test_trl_templates import SPECIAL, conversation, tokenizer_of


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids that the engine is asked to go on from."""
    given: list[list[int]] = []

    def generate(_model: Any, _tokenizer: Any, ids: list[int], *_: Any) -> None:
        given.append(list(ids))

    def generate_batch(_model: Any, _tokenizer: Any, prompts: list[list[int]], *_: Any, **__: Any) -> list[Any]:
        given.extend(map(list, prompts))
        return [("", {})] * len(prompts)

    monkeypatch.setattr(causal_lm, "generate", generate)
    monkeypatch.setattr(causal_lm, "generate_batch", generate_batch)
    return given


def check(tokenizer: Any, messages: list[dict[str, Any]], engine: list[list[int]]) -> None:
    """Ask each question of a conversation after its history, alone and in a batch."""
    trained = encode_conversation(tokenizer, messages)
    asked = [number for number, message in enumerate(messages) if message["role"] == "user"]
    for number in asked:
        causal_lm.stream_chat(None, tokenizer, messages[number]["content"], messages[:number])
    requests = [{"ins": messages[number]["content"], "his": messages[:number]} for number in asked]
    causal_lm.chat_many(None, tokenizer, requests, threading.Event())
    assert len(engine) == 2 * len(asked)
    for ids, number in zip(engine, [*asked, *asked], strict=True):
        alone = encode_conversation(tokenizer, messages[: number + 2])
        assert trained.ids[: len(ids)] == alone.ids[: len(ids)] == ids
        assert trained.mask[len(ids)], "what follows is learned"
    engine.clear()


@pytest.mark.parametrize("training", [True, False], ids=["marked", "own"])
@pytest.mark.parametrize("name", SPECIAL)
def test_the_engine_is_given_what_was_trained(engine: list[list[int]], name: str, training: bool) -> None:
    draw = random.Random(name)
    for _ in range(30):
        check(tokenizer_of(name, training), conversation(draw, name), engine)


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_so_it_is_with_templates_of_ours(engine: list[list[int]], tokenizers: Any, kind: str, template: str) -> None:
    texts = [("user", "Hello there"), ("assistant", "Paris is."), ("user", "And?"), ("assistant", "你好")]
    check(tokenizers(kind, template), [{"role": role, "content": text} for role, text in texts], engine)


def test_names_of_a_request_reach_the_prompt_until_they_were_trained(engine: list[list[int]], tokenizers: Any) -> None:
    names, tokenizer = {"user_role": "Human", "assistant_role": "Bot"}, tokenizers("bytes", "default", eos_token="</s>")
    causal_lm.stream_chat(None, tokenizer, "q", **names)
    causal_lm.chat_many(None, tokenizer, [{"ins": "q", **names}], threading.Event())
    fix_roles(tokenizer, {"user_role": "Guest"})
    causal_lm.stream_chat(None, tokenizer, "q", **names)
    assert [tokenizer.decode(ids) for ids in engine] == ["<s>Human: q\nBot:"] * 2 + ["<s>Guest: q\nAssistant:"]
