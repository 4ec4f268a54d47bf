import numpy as np
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rows import detect_format, to_messages, tools_of

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
        (["prompt", "completion"], "prompt-completion"),
        (["text", "file"], "text"),
    ],
)
def test_the_columns_tell_the_format(columns, expected):
    assert detect_format(columns) == expected


def test_unknown_columns_are_named_with_the_accepted_ones():
    with pytest.raises(ByzerError) as caught:
        detect_format(["question", "answer"])
    assert "question, answer" in str(caught.value)
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
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages", "unknown role 'robot'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages", r"content\[1\] is text, without"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", r"\[1\] is image_url"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages", r"content\[1\] is str"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages", "content is missing"),
        ({"messages": [{"role": "assistant", "content": "a", "weight": 2}]}, "messages", "weight is 2"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages", "the call of a function"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "messages",
            "tool_calls arguments is not JSON",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}]},
            "messages",
            "the arguments of f are a list, not an object",
        ),
        ({"conversations": [{"from": "function_call", "value": "f(x)"}]}, "sharegpt", "value is not JSON: 'f"),
        ({"prompt": "q", "completion": None}, "prompt-completion", "prompt is a str, not a list"),
        ({"prompt": [{"role": "user", "content": "q"}]}, "prompt-completion", "completion is missing"),
        ({"conversations": [{"from": "bing", "value": "x"}]}, "sharegpt", "unknown from 'bing'"),
        ({"text": "t"}, "text", "no conversation"),
        ({"text": "t"}, "csv", "unknown data format"),
    ],
)
def test_a_row_that_does_not_fit_names_what_is_wrong(row, format, reason):
    with pytest.raises(ByzerError, match=reason):
        to_messages(row, format)


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def test_an_answer_that_calls_tools_needs_no_text():
    turns = [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "?"}], "name": None},
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "c1", "index": 0}]},
        {"role": "tool", "content": "1", "tool_call_id": "c1", "name": "add", "tool_calls": None},
        {"role": "assistant", "content": "a", "reasoning_content": "hm", "weight": 1},
    ]
    assert to_messages({"messages": turns}, "messages") == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q?"},
        {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "c1"}]},
        {"role": "tool", "content": "1", "tool_call_id": "c1", "name": "add"},
        {"role": "assistant", "content": "a", "reasoning_content": "hm", "weight": 1},
    ]


@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}, {"a": 1, "only_in_another_row": None}])
def test_arguments_of_a_call_are_an_object_however_they_come(arguments):
    calls = [{"function": {"name": "add", "arguments": arguments}}]
    [message] = to_messages({"messages": [{"role": "assistant", "tool_calls": calls}]}, "messages")
    assert message["tool_calls"] == [CALL]


def test_sharegpt_calls_tools_by_turns_of_its_own():
    row = {
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
            {"from": "observation", "value": "1"},
            {"from": "gpt", "value": "a"},
        ],
        "system": "s",
    }
    messages = to_messages(row, "sharegpt")
    assert flat(messages) == [(SYSTEM, "s"), (USER, "q"), (ASSISTANT, ""), ("tool", "1"), (ASSISTANT, "a")]
    assert messages[2]["tool_calls"] == [CALL]


def test_a_prompt_and_its_completion_are_a_question_and_an_answer():
    assert flat(to_messages({"prompt": "[q", "completion": "a"}, "prompt-completion")) == [
        (USER, "[q"),
        (ASSISTANT, "a"),
    ]


def test_of_a_prompt_of_messages_nothing_is_learned():
    prompt = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}]
    row = {"prompt": prompt, "completion": [{"role": "assistant", "content": "b"}]}
    assert [m.get("weight") for m in to_messages(row, "prompt-completion")] == [None, 0, None, None]


def test_lists_may_be_json_texts_as_csv_files_hold_them():
    assert len(to_messages({"instruction": "i", "output": "o", "history": '[["q", "a"]]'}, "alpaca")) == 4
    assert len(to_messages({"messages": '[{"role": "user", "content": "q"}]'}, "messages")) == 1


def test_tools_come_as_a_list_or_a_json_text_and_nulls_are_left_out():
    tool = {"type": "function", "function": {"name": "add"}}
    padded = {"type": "function", "function": {"name": "add", "description": None}}
    assert tools_of({"tools": [padded]}) == tools_of({"tools": '[{"type": "function", "function": {"name": "add"}}]'})
    assert tools_of({"tools": [padded]}) == [tool]
    assert tools_of({}) is tools_of({"tools": None}) is tools_of({"tools": []}) is None
    with pytest.raises(ByzerError, match="tools holds a str"):
        tools_of({"tools": ["add"]})
