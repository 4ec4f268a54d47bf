"""What a request becomes for an adapter's `stream_chat`."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from byzerllm_magics.cluster.replica import Replica
from byzerllm_magics.tables.requests import for_replica

REQUEST = {"instruction": "q", "user_role": "Human", "assistant_role": "Bot", "top_p": 0.5, "generation.image": "x"}


def ours(
    tokenizer: Any, ins: str, his: Any = (), user_role: Any = None, assistant_role: Any = None, **more: Any
) -> str:
    return f"{ins} {user_role} {assistant_role} {more}"


def a_users(tokenizer: Any, ins: str, his: Any = (), **generate: Any) -> str:
    return f"{ins} {generate}"


@pytest.mark.parametrize(
    ("stream_chat", "answer"),
    [(ours, "q Human Bot {'top_p': 0.5, 'image': 'x'}"), (a_users, "q {'top_p': 0.5, 'image': 'x'}")],
)
def test_names_of_who_talks_reach_an_adapter_that_has_a_place_for_them(
    stream_chat: Callable[..., str], answer: str
) -> None:
    replica = object.__new__(Replica)  # without a model that is loaded
    replica._model, replica._tokenizer = SimpleNamespace(stream_chat=stream_chat), None
    assert replica._one(replica._arguments(for_replica(REQUEST))) == (answer, {})
