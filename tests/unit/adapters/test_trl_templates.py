"""Ids and masks equal what transformers computes from TRL's training templates, token for token."""

from __future__ import annotations

import random
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from byzerllm_adapters.conversations import Encoded, encode_conversation, encode_conversations, encode_prompt
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.templates import frame

SPECIAL = {
    "llama3": ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"],
    "qwen2_5": ["<|endoftext|>", "<|im_end|>", "<|im_start|>"],
    "qwen3": ["<|endoftext|>", "<|im_end|>", "<|im_start|>"],
    "gemma3": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
    "phi3": ["<s>", "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
    "glm4moe": ["[gMASK]", "<|endoftext|>", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>"],
}
"""Each model's special tokens: BOS (or a stand-in) and EOS come first."""

WORDS = {
    "qwen3": ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"],
    "glm4moe": ["<think>", "</think>", "<tool_call>", "</tool_call>", "/nothink", "<arg_key>", "</arg_key>"],
}
"""Added tokens that are not special."""

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How the vocabularies of Llama 3, Qwen and GLM cut a text: a run of line breaks is one piece."""

BORDERS = ("qwen2_5", "phi3")
"""Templates whose prompt ends in a line break that a tokenizer merges with one that begins the answer."""

CORPUS = [
    "The red house is small.\n\nIs it? Yes, it's 1234!",
    "你好，世界。\n今天天气很好。",
    "assistant\n\nuser\n\nsystem\n",
] * 9
FRAGMENTS = [
    *(
        "Hello",
        " there",
        "\n",
        "\n\n",
        "  ",
        ".",
        "it's",
        "1234",
        "你好",
        "🙂",
        "é",
        "e\u0301",
        "\u200b",
        "{",
        '"',
        "\\n",
    ),
    *("assistant", "user:", "<|", "|>", "<think", "</s>", "[INST]", "system\n", "<end_of_turn", "{{ x }}", "{% y %}"),
]


@lru_cache
def tokenizer_of(name: str, training: bool = True) -> PreTrainedTokenizerFast:
    """A small byte-level BPE with a model's special tokens, and TRL's template for that model."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False))
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL[name]])
    bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in WORDS.get(name, [])])
    bos, eos, *_ = SPECIAL[name]
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=bos, eos_token=eos)
    made.chat_template = template(name, training)
    return made


def template(name: str, training: bool) -> str:
    """TRL's file, read without importing TRL."""
    spec = find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "chat_templates"
    return (folder / f"{name}{'_training' if training else ''}.jinja").read_text("utf-8")


def written(draw: random.Random, name: str) -> str:
    """A text of odd fragments, special tokens among them; maybe empty."""
    return "".join(draw.choices([*FRAGMENTS, *SPECIAL[name]], k=draw.randrange(7)))


def conversation(draw: random.Random, name: str, turns: int | None = None) -> list[dict[str, Any]]:
    head = [{"role": "system", "content": written(draw, name)}] if draw.random() < 0.5 else []
    pairs = [(written(draw, name), written(draw, name)) for _ in range(turns or draw.randint(1, 4))]
    if name in BORDERS:
        pairs = [(question, answer.lstrip()) for question, answer in pairs]
    return head + [
        {"role": r, "content": t} for pair in pairs for r, t in zip(("user", "assistant"), pair, strict=True)
    ]


def theirs(tokenizer: PreTrainedTokenizerFast, messages: Any, tools: Any = None) -> tuple[list[int], list[bool]]:
    """Ids and mask as TRL's `SFTTrainer` asks transformers for them."""
    found = tokenizer.apply_chat_template(messages, tools=tools, return_assistant_tokens_mask=True, return_dict=True)
    return found["input_ids"], [bool(on) for on in found["assistant_masks"]]


def with_tools(draw: random.Random, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A conversation in which an answer calls a tool, and the tool."""
    schema = {"name": "look_up", "description": "Looks.", "parameters": {"type": "object"}}
    calls = [
        {"type": "function", "function": {"name": "look_up", "arguments": {"what": written(draw, name), "n": n}}}
        for n in range(draw.randint(1, 2))
    ]
    content = draw.choice(["", "I look."])
    begin = [
        {"role": "user", "content": written(draw, name)},
        {"role": "assistant", "content": content, "tool_calls": calls},
    ]
    results = [{"role": "tool", "content": f"found {written(draw, name)}."} for _ in calls]
    rest = [{"role": "assistant", "content": "It is so."}, *conversation(draw, name, 1)[-2:]]
    return [*begin, *results, *rest], [{"type": "function", "function": schema}]


@pytest.mark.parametrize("name", SPECIAL)
def test_two_hundred_conversations_have_the_ids_and_the_mask_of_trl(name: str) -> None:
    tokenizer, draw = tokenizer_of(name), random.Random(name)
    for _ in range(200):
        messages = conversation(draw, name)
        ours = encode_conversation(tokenizer, messages)
        assert (ours.ids, ours.mask) == theirs(tokenizer, messages), messages


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "glm4moe"])
def test_conversations_with_tools_have_the_ids_and_the_mask_of_trl(name: str) -> None:
    tokenizer, draw = tokenizer_of(name), random.Random(name)
    for _ in range(50):
        messages, tools = with_tools(draw, name)
        ours = encode_conversation(tokenizer, messages, tools=tools)
        assert (ours.ids, ours.mask) == theirs(tokenizer, messages, tools), messages


@pytest.mark.parametrize("name", SPECIAL)
def test_the_models_own_templates_without_markers_have_the_same_ids_and_mask(name: str) -> None:
    """Two things differ, and are taken off: Qwen 2.5's markers begin before the line break that ends the prompt, and
    Qwen 3's own template writes a block of thoughts into the last answer only, TRL's into each.
    """
    own, marked, draw = tokenizer_of(name, training=False), tokenizer_of(name), random.Random(name)
    for _ in range(200):
        messages = conversation(draw, name, turns=1 if name == "qwen3" else None)
        ours = encode_conversation(own, messages)
        ids, mask = theirs(marked, messages)
        if name == "qwen2_5":
            mask = [on and i > 0 and mask[i - 1] for i, on in enumerate(mask)]
        assert (ours.ids, ours.mask) == (ids, mask), messages


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "glm4moe"])
def test_calls_of_tools_are_learned_without_markers_too(name: str) -> None:
    own, marked, draw = tokenizer_of(name, training=False), tokenizer_of(name), random.Random(name)
    thoughts = "<think>\n\n</think>\n\n"
    for _ in range(50):
        messages, tools = with_tools(draw, name)
        ids, mask = theirs(marked, messages, tools)
        expected = marked.decode([token for token, on in zip(ids, mask, strict=True) if on])
        ours = encode_conversation(own, messages, tools=tools)
        found = own.decode([token for token, on in zip(ours.ids, ours.mask, strict=True) if on])
        if name == "qwen2_5":
            expected = expected.removeprefix("\n").replace("<|im_end|>\n\n", "<|im_end|>\n")
        assert found.replace(thoughts, "") == expected.replace(thoughts, "")


def test_qwen_3_learns_thoughts_where_its_own_template_writes_them() -> None:
    own = tokenizer_of("qwen3", training=False)
    turns = [("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")]
    encoded = encode_conversation(own, [{"role": role, "content": text} for role, text in turns])
    learned = own.decode([token for token, on in zip(encoded.ids, encoded.mask, strict=True) if on])
    assert learned == "a<|im_end|>\n<think>\n\n</think>\n\nb<|im_end|>\n"


@pytest.mark.parametrize("name", BORDERS)
def test_where_an_answer_begins_with_a_line_break_ours_is_what_is_served(name: str) -> None:
    tokenizer = tokenizer_of(name)
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "\nHello"}]
    prompt, ours = encode_prompt(tokenizer, messages[:1]), encode_conversation(tokenizer, messages)
    served = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
    ids, _ = theirs(tokenizer, messages)
    assert ours.ids[: len(prompt)] == prompt == served
    assert ids[: len(prompt)] != served, "one token for both line breaks, which no prompt ends with"
    assert tokenizer.decode(ours.ids) == tokenizer.decode(ids)


def test_glm_ends_an_answer_with_the_token_that_opens_the_next_question() -> None:
    found = frame(tokenizer_of("glm4moe", training=False))
    assert (found.end, found.opens_next) == ("<|user|>", True)
    assert frame(tokenizer_of("glm4moe")).end == "<|user|>"


@pytest.mark.parametrize(("name", "what"), [("llama3", "the tool calls of message 2"), ("phi3", "the tool calls")])
def test_a_template_without_a_place_for_tools_is_refused(name: str, what: str) -> None:
    messages, tools = with_tools(random.Random(1), name)
    with pytest.raises(ByzerError, match=what):
        encode_conversation(tokenizer_of(name), messages, tools=tools)
    with pytest.raises(ByzerError, match="the column tools"):
        encode_conversation(tokenizer_of(name), conversation(random.Random(1), name), tools=tools)


def generated(draw: random.Random, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """A conversation, maybe with tools, of which some answers are not learned or the template cannot take it."""
    messages, tools = with_tools(draw, name) if draw.random() < 0.2 else (conversation(draw, name), None)
    for message in messages:
        if message["role"] == "assistant" and draw.random() < 0.2:
            message["weight"] = 0
    fault = draw.random()
    if fault < 0.05:
        return messages[-1:], tools  # an answer first
    if fault < 0.1:
        return [*messages, {"role": "critic", "content": written(draw, name)}], tools
    return messages, tools


def alone(tokenizer: Any, messages: Any, tools: Any) -> Any:
    try:
        return encode_conversation(tokenizer, messages, 200, tools)
    except ByzerError as error:
        return str(error)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SPECIAL)
def test_a_thousand_conversations_together_are_each_by_itself(name: str, training: bool) -> None:
    tokenizer, draw = tokenizer_of(name, training), random.Random(name)
    rows, tools = zip(*(generated(draw, name) for _ in range(1000)), strict=True)
    together = encode_conversations(tokenizer, rows, 200, tools)
    expected = [alone(tokenizer, *row) for row in zip(rows, tools, strict=True)]
    assert [str(each) if isinstance(each, ByzerError) else each for each in together] == expected
    fits = [each for each in together if isinstance(each, Encoded)]
    assert 500 < len(fits) < 1000
    assert any(not all(each.mask) and any(each.mask) for each in fits)
