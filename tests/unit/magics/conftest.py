import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from byzerllm_magics.session import Session
from tests.unit.magics.fakes import FakeModel

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Ran:
    """What a cell did: its result, what it printed, and its error, if any."""

    value: Any
    text: str
    error: BaseException | None

    @property
    def lines(self) -> list[str]:
        return self.text.strip("\n").split("\n")


@pytest.fixture(scope="session")
def ipython(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.ProfileDir.location = str(tmp_path_factory.mktemp("profile"))
    yield InteractiveShell.instance(config=config)
    InteractiveShell.clear_instance()


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("BYZERLLM_STATE", str(folder))
    return folder


@pytest.fixture
def shell(ipython: Any, own_state: Path) -> Iterator[Any]:
    """A shell in which the extension is loaded and nothing is defined."""
    before = dict(ipython.user_ns)  # `reset` would collect garbage, which takes long once torch is loaded
    ipython.run_line_magic("load_ext", "byzerllm_magics")
    yield ipython
    ipython.run_line_magic("unload_ext", "byzerllm_magics")
    ipython.user_ns.clear()
    ipython.user_ns.update(before)


@pytest.fixture
def run(shell: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that runs a cell as a notebook does."""

    def run_cell(cell: str) -> Ran:
        capsys.readouterr()
        result = shell.run_cell(cell)
        captured = capsys.readouterr()
        text = ANSI.sub("", captured.out + captured.err)
        return Ran(result.result, text, result.error_in_exec or result.error_before_exec)

    return run_cell


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """The one deployed model, "chat"."""
    made = FakeModel()
    monkeypatch.setattr(Session, "model", lambda _self, name=None: made.named(name))
    return made
