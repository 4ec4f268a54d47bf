"""What is refused before Ray is asked, and how Ray's refusals are told."""

from pathlib import Path
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster import connection, embedded
from byzerllm_magics.cluster.connection import ClusterInfo


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing of the user's own; returns where the token would be."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", *embedded.ENVIRONMENT):
        monkeypatch.setenv(name, "")  # so that what the test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    return tmp_path / "token"


@pytest.fixture
def init(monkeypatch: pytest.MonkeyPatch, environment: Path) -> list[dict[str, Any]]:
    """The arguments that `ray.init` is called with; it connects to nothing. A token is there."""
    import ray

    environment.write_text("token")
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **arguments: calls.append(arguments))
    monkeypatch.setattr(connection, "cluster_info", lambda: info("10.0.0.1:6379"))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    return calls


def info(address: str) -> ClusterInfo:
    return ClusterInfo(address, embedded=False, dashboard="", nodes=1, total={"CPU": 2.0}, free={"CPU": 2.0})


def test_a_cluster_without_its_token_is_refused_at_once(environment: Path) -> None:
    with pytest.raises(ByzerError, match=r"10\.0\.0\.1:6379 asks for a token") as caught:
        connection.connect("10.0.0.1:6379")
    assert str(environment) in str(caught.value)


def test_a_token_is_never_shown(init: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(**_: Any) -> None:
        raise ConnectionError("InvalidAuthToken\nmore")

    monkeypatch.setenv("RAY_AUTH_TOKEN", "s3cret")
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ByzerError, match="no Ray cluster answers") as caught:
        connection.connect("10.0.0.1:6379")
    assert caught.value.where == "InvalidAuthToken"
    assert "s3cret" not in str(caught.value)
    assert len(caught.value.render()) <= 5


def test_an_address_is_taken_from_the_call_before_the_environment(
    init: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    connection.connect("10.0.0.1:6379")
    connection.connect()
    assert [call["address"] for call in init] == ["10.0.0.1:6379", "10.0.0.2:6379"]
    assert {call["namespace"] for call in init} == {"byzerllm"}


def test_without_an_address_the_embedded_cluster_that_runs_is_used(
    init: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = embedded.EmbeddedCluster("127.0.0.1:7", "", "", {}, [])
    monkeypatch.setattr(embedded, "find", lambda: running)
    connection.connect()
    assert init[0]["address"] == "127.0.0.1:7"


def test_a_second_cluster_is_refused_and_the_same_one_is_not(
    init: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "is_connected", lambda: True)
    assert connection.connect() == connection.connect("10.0.0.1:6379") == connection.connect("auto")
    with pytest.raises(ByzerError, match=r"connected to 10\.0\.0\.1:6379"):
        connection.connect("10.0.0.9:6379")
    assert init == []


def test_a_connection_that_is_lost_is_told_and_the_next_cell_may_connect_anew(
    init: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    left: list[bool] = []

    def gone() -> ClusterInfo:
        raise RuntimeError("GCS is gone")

    monkeypatch.setattr(connection, "is_connected", lambda: True)
    monkeypatch.setattr(connection, "cluster_info", gone)
    monkeypatch.setattr(ray, "shutdown", lambda: left.append(True))
    with pytest.raises(ByzerError, match="connection to the Ray cluster is lost"):
        connection.connect()
    assert left == [True]


def test_looking_whether_there_is_a_connection_does_not_import_ray() -> None:
    import subprocess
    import sys

    code = "import sys; from byzerllm_magics.cluster.connection import is_connected\n"
    code += "print(is_connected(), 'ray' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False False\n"
