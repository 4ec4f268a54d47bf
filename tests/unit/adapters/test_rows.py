import numpy as np
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rows import detect_format, to_messages

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"


def flat(messages):
    return [(m["role"], m["content"]) for m in messages]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["instruction", "input", "output"], "alpaca"),
        (["id", "output", "instruction", "history"], "alpaca"),
        (["conversation", "meta"], "moss"),
        (["messages", "text"], "messages"),
        (["conversations"], "sharegpt"),
        (["text", "file"], "text"),
    ],
)
def test_the_columns_tell_the_format(columns, expected):
    assert detect_format(columns) == expected


def test_unknown_columns_are_named_with_the_accepted_ones():
    with pytest.raises(ByzerError) as caught:
        detect_format(["prompt", "completion"])
    assert "prompt, completion" in str(caught.value)
    assert "instruction + output (alpaca)" in str(caught.value)
    with pytest.raises(ByzerError, match=r"\(none\)"):
        detect_format([])


def test_alpaca_joins_instruction_and_input_and_keeps_the_history():
    row = {"instruction": "add", "input": "1 2", "output": "3", "history": [["hi", "hello"]]}
    assert flat(to_messages(row, "alpaca")) == [
        (USER, "hi"),
        (ASSISTANT, "hello"),
        (USER, "add\n1 2"),
        (ASSISTANT, "3"),
    ]


@pytest.mark.parametrize("nothing", [None, "", float("nan")])
def test_alpaca_without_input_is_the_instruction_alone(nothing):
    row = {"instruction": "add", "input": nothing, "output": "3", "history": None}
    assert flat(to_messages(row, "alpaca")) == [(USER, "add"), (ASSISTANT, "3")]


def test_history_may_be_an_array_of_arrays_as_pandas_gives_it():
    pairs = np.array([np.array(["q", "a"], dtype=object)], dtype=object)
    row = {"instruction": "i", "output": "o", "history": pairs}
    assert flat(to_messages(row, "alpaca"))[:2] == [(USER, "q"), (ASSISTANT, "a")]


def test_moss_openai_and_sharegpt_become_the_same_messages():
    expected = [(USER, "q"), (ASSISTANT, "a")]
    assert flat(to_messages({"conversation": [{"human": "q", "assistant": "a"}]}, "moss")) == expected
    openai = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert flat(to_messages({"messages": openai}, "messages")) == expected
    sharegpt = [
        {"from": "system", "value": "s"},
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "a"},
    ]
    assert flat(to_messages({"conversations": sharegpt}, "sharegpt")) == [(SYSTEM, "s"), *expected]


@pytest.mark.parametrize(
    ("row", "format", "reason"),
    [
        ({"instruction": "i"}, "alpaca", "output is missing"),
        ({"instruction": "i", "output": float("nan")}, "alpaca", "output is missing"),
        ({"instruction": "i", "output": " \n"}, "alpaca", "output is empty"),
        ({"instruction": 3, "output": "o"}, "alpaca", "instruction is a int"),
        ({"instruction": "i", "output": "o", "input": 3}, "alpaca", "input is a int"),
        ({"instruction": "i", "output": "o", "history": "h"}, "alpaca", "history is a str, not a list"),
        ({"instruction": "i", "output": "o", "history": [["q"]]}, "alpaca", r"history\[1\] holds 1 texts"),
        ({"instruction": "i", "output": "o", "history": [["q", None]]}, "alpaca", "answer is missing"),
        ({"conversation": [{"human": "q"}]}, "moss", "assistant is missing"),
        ({"conversation": []}, "moss", "conversation is empty"),
        ({}, "messages", "messages is missing"),
        ({"messages": ["hi"]}, "messages", "a turn is a str"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "unknown role 'tool'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages", "content is a list"),
        ({"conversations": [{"from": "bing", "value": "x"}]}, "sharegpt", "unknown from 'bing'"),
        ({"text": "t"}, "text", "no conversation"),
        ({"text": "t"}, "csv", "unknown data format"),
    ],
)
def test_a_row_that_does_not_fit_names_what_is_wrong(row, format, reason):
    with pytest.raises(ByzerError, match=reason):
        to_messages(row, format)
