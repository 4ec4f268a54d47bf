"""What a replica tells of its adapter's errors, and what its adapter gets for a secret."""

import asyncio
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from byzerllm_adapters import registry
from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster import replica as replicas
from byzerllm_magics.cluster.replica import Replica
from byzerllm_magics.tables.requests import for_replica

SECRET = "sk-LITERAL99"


class Refusing:
    """A model whose service refuses every request, and quotes the key."""

    def __init__(self, key: str) -> None:
        self.key = key

    def stream_chat(self, _tokenizer: Any, ins: str, his: Any = (), **_options: Any) -> Iterator[Any]:
        raise ValueError(f"401 for {self.key}")
        yield


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a replica around an adapter whose `init_model` is given."""
    monkeypatch.setattr(replicas, "_listen_on_own_address", lambda: None)

    def made(init_model: Any, **keys: str) -> Replica:
        adapter = types.SimpleNamespace(init_model=init_model)
        monkeypatch.setattr(registry, "find", lambda _name: adapter)
        return Replica({"pretrainedModelType": "custom/x", "localModelDir": "", **keys}, {}, threads=1)

    return made


def test_a_key_never_stands_in_an_error_of_its_adapter(deploy: Any) -> None:
    replica = deploy(lambda _folder, keys, _conf: (Refusing(keys["saas.api_key"]), None), **{"saas.api_key": SECRET})
    [answer] = asyncio.run(replica.answer([{"instruction": "hello"}]))
    assert "401 for ***" in answer["error"]
    assert SECRET not in str(answer)

    async def ask() -> None:
        async for _ in replica.chat({"instruction": "hello"}):
            pass

    with pytest.raises(ByzerError, match=r"401 for \*\*\*"):
        asyncio.run(ask())


def test_a_key_never_stands_in_the_error_of_a_model_that_does_not_load(deploy: Any) -> None:
    def init_model(_folder: str, keys: Any, _conf: Any) -> Any:
        raise ByzerError(f"no service for {keys['saas.api_key']}", where=keys["saas.api_key"], do=keys["saas.api_key"])

    replica = deploy(init_model, **{"saas.api_key": SECRET})
    with pytest.raises(ByzerError, match="no service for") as caught:
        asyncio.run(replica.describe())
    assert SECRET not in "".join(caught.value.render())


def test_a_key_of_the_environment_reaches_the_adapter(deploy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    seen: dict[str, str] = {}
    replica = deploy(lambda _folder, keys, _conf: (seen.update(keys), sys), **{"saas.api_key": "env:MY_KEY"})
    assert seen["saas.api_key"] == SECRET
    assert replica._error is None
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ByzerError, match="which has no MY_KEY"):
        asyncio.run(deploy(lambda *_: (None, None), **{"saas.api_key": "env:MY_KEY"}).describe())


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
    deploy: Any, stream_chat: Any, answer: str
) -> None:
    request = {"instruction": "q", "user_role": "Human", "assistant_role": "Bot", "top_p": 0.5, "generation.image": "x"}
    replica = deploy(lambda *_: (types.SimpleNamespace(stream_chat=stream_chat), None))
    [found] = asyncio.run(replica.answer([for_replica(request)]))
    assert found["text"] == answer
