"""Rows of a prompt, the answer that was chosen and the one that was rejected."""

import numpy as np
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.preference_rows import Pair, check_columns, to_pair


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be kind."}
ASKED = Pair([user("Q")], [assistant("A")], [assistant("B")])


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "chosen": "A", "rejected": "B", "system": None, "history": float("nan"), "score": 3},
        {"prompt": [user("Q")], "chosen": [assistant("A")], "rejected": [assistant("B")]},
        {"prompt": [user("Q")], "chosen": "A", "rejected": "B"},
        {"prompt": "Q", "chosen": [assistant("A")], "rejected": [assistant("B")]},
        {"chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]},
        {"prompt": None, "chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]},
        {"prompt": "Q", "chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]},
        {"prompt": [user("Q")], "chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]},
        {"prompt": np.array([user("Q")]), "chosen": np.array([assistant("A")]), "rejected": [assistant("B")]},
        {
            "prompt": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "A"},
            "rejected": {"from": "gpt", "value": "B"},
        },
    ],
    ids=[
        "texts", "more columns", "lists", "list and texts", "text and lists", "whole conversations", "no prompt",
        "prompt said again", "prompt list said again", "arrays", "sharegpt",
    ],
)  # fmt: skip
def test_the_fields_ways_to_write_a_preference_mean_the_same(row):
    assert to_pair(row) == ASKED


def test_the_common_beginning_of_two_conversations_is_the_prompt():
    begin = [SYSTEM, user("1"), assistant("one"), user("2")]
    ends = [assistant("two"), user("3"), assistant("three")], [assistant("too")]
    assert to_pair({"chosen": begin + ends[0], "rejected": begin + ends[1]}) == Pair(begin, *ends)


def test_system_and_history_come_before_a_prompt():
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "system": "Be kind.", "history": [["q", "a"]]}
    assert to_pair(row).prompt == [SYSTEM, user("q"), assistant("a"), user("Q")]
    whole = {"chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")], "system": "Be kind."}
    assert to_pair(whole).prompt == [SYSTEM, user("Q")]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"prompt": "Q", "chosen": "A", "rejected": "A"}, "chosen and rejected are the same"),
        ({"prompt": "Q", "chosen": "A", "rejected": " "}, "rejected is empty"),
        ({"prompt": "Q", "chosen": None, "rejected": "B"}, "chosen is missing"),
        ({"prompt": "Q", "chosen": 3, "rejected": "B"}, "chosen is a int, neither text nor a list"),
        ({"prompt": "Q", "chosen": [], "rejected": "B"}, "chosen: messages is empty"),
        ({"prompt": "", "chosen": "A", "rejected": "B"}, "prompt is empty"),
        ({"chosen": "A", "rejected": "B"}, "prompt is missing"),
        ({"chosen": [user("Q")], "rejected": [user("Q"), assistant("B")]}, "chosen has no answer"),
        ({"chosen": [user("Q"), assistant("A")], "rejected": [user("P"), assistant("B")]}, "goes on with a turn of"),
        ({"prompt": [user("P")], "chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]},
         "prompt is not how chosen and rejected begin"),
        ({"prompt": [SYSTEM, user("Q")], "chosen": "A", "rejected": "B", "system": "x"}, "given twice"),
        ({"prompt": [user("Q")], "chosen": "A", "rejected": "B", "history": [["q", "a"]]}, "history goes with"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "history": [["q"]]}, r"history\[1\]"),
        ({"prompt": "Q", "chosen": [{"role": "robot", "content": "A"}], "rejected": "B"}, "chosen: unknown role"),
    ],
)  # fmt: skip
def test_a_row_that_holds_no_preference_is_refused(row, what):
    with pytest.raises(ByzerError, match=what) as caught:
        to_pair(row)
    assert len(caught.value.render()) <= 5


def test_a_table_without_the_columns_is_refused_with_those_it_has():
    check_columns(["prompt", "chosen", "rejected"])
    with pytest.raises(ByzerError, match="need a column rejected; there are: prompt, chosen"):
        check_columns(["prompt", "chosen"])
    with pytest.raises(ByzerError, match=r"chosen and a column rejected; there are: \(none\)"):
        check_columns([])


def test_tools_belong_to_both_answers_and_their_calls_may_be_answers():
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    row = {"prompt": "Q", "chosen": [called], "rejected": "B", "tools": [{"name": "f", "parameters": None}]}
    pair = to_pair(row)
    assert pair.tools == [{"name": "f"}]
    assert pair.chosen[0]["tool_calls"][0]["function"] == {"name": "f", "arguments": {}}
    with pytest.raises(ByzerError, match="tools holds a str"):
        to_pair(row | {"tools": ["f"]})
