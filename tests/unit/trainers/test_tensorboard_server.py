"""TensorBoard's address: there at once, and TensorBoard itself behind it once somebody looks."""

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

from byzerllm_trainers.tensorboard_server import STARTING, TensorBoardServer


def test_the_first_visitor_starts_tensorboard_at_the_same_address(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "run")) as writer:
        writer.add_scalar("loss", 1.5, 3)
    server = TensorBoardServer(tmp_path)
    with urllib.request.urlopen(server.url) as page:
        assert page.read() == STARTING
    runs: list[str] = []
    deadline = time.monotonic() + 60
    while "run" not in runs and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{server.url}data/runs") as found:
                runs = json.loads(found.read())
        except (OSError, urllib.error.URLError, json.JSONDecodeError):
            time.sleep(0.2)
    assert runs == ["run"]


def test_it_listens_on_the_loopback_address_alone(tmp_path: Path) -> None:
    server = TensorBoardServer(tmp_path)
    own = socket.gethostbyname(socket.gethostname())
    with socket.socket() as probe:
        probe.settimeout(1)
        assert own.startswith("127.") or probe.connect_ex((own, server.port)) != 0
