"""Many requests to a loaded model: together where its adapter can, else one after another."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from byzerllm_adapters.answering import answer_many
from byzerllm_adapters.errors import ByzerError

REQUESTS = [{"ins": "a", "his": [], "temperature": 0.0}, {"ins": "fail", "his": []}, {"ins": "c", "his": []}]


class Plain:
    """A user's adapter: one conversation at a time."""

    def stream_chat(self, _tokenizer: Any, ins: str, _his: Any = (), **options: Any) -> Any:
        if ins == "fail":
            raise KeyError("no such thing")
        yield ins, {}
        yield ins * 2, {"options": options}


def test_an_adapter_that_answers_one_at_a_time_answers_all_and_a_failing_one_alone_fails() -> None:
    first, failed, last = answer_many(Plain(), None, REQUESTS, threading.Event())
    assert first == ("aa", {"options": {"temperature": 0.0}})
    assert isinstance(failed, ByzerError)
    assert failed.what.startswith("KeyError")
    assert __file__ in failed.where
    assert last == ("cc", {"options": {}})
    assert REQUESTS[0]["ins"] == "a", "requests stay as they are"


def test_one_that_answers_many_is_asked_once() -> None:
    asked: list[Sequence[Mapping[str, Any]]] = []

    class Batched(Plain):
        def chat_many(self, _tokenizer: Any, requests: Any, _cancelled: Any) -> list[Any]:
            asked.append(requests)
            return [(request["ins"], {}) for request in requests]

    assert [text for text, _ in answer_many(Batched(), None, REQUESTS, threading.Event())] == ["a", "fail", "c"]
    assert len(asked) == 1


def test_what_was_not_begun_when_it_was_cancelled_is_not_answered() -> None:
    cancelled = threading.Event()
    cancelled.set()
    assert answer_many(Plain(), None, REQUESTS, cancelled) == []
