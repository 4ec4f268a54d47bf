"""One embedded Ray cluster a test session, in a state folder of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Hear SIGINT, which a process that a shell has started in its background ignores."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the tests' jobs and cluster away from the user's own."""
    folder = tmp_path_factory.mktemp("state")
    os.environ["BYZERLLM_STATE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def cluster(state: Path) -> Iterator[object]:
    """The embedded cluster, connected; ended with the session."""
    from byzerllm_magics.cluster import connection

    yield connection.connect()
    connection.shutdown()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Llama of about 50,000 parameters."""
    from tests.tiny import make_model

    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def store() -> Iterator[dict[str, str]]:
    """An S3 server; the environment with which it is found."""
    from tests.object_store import object_store

    with object_store() as environment:
        yield environment


@pytest.fixture
def elsewhere(store: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Become another machine: one with an empty cache, which sees the same S3 server.

    A cluster was started without it in its environment, as when somebody sets it in a cell.
    """
    for name, value in store.items():
        monkeypatch.setenv(name, value)

    def move(machine: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))

    move("first")
    return move
