"""Files to load and tables to query."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | bytes], str]:
    """Write a file below the working folder and return its path."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return write


@pytest.fixture
def refused() -> Callable[..., list[str]]:
    """Call something that has to raise a ByzerError of at most five lines; return its lines."""

    def refused(call: Callable[..., Any], *arguments: Any, **more: Any) -> list[str]:
        with pytest.raises(ByzerError) as caught:
            call(*arguments, **more)
        lines = caught.value.render()
        assert len(lines) <= 5, lines
        assert max(map(len, lines)) < 220, lines
        return lines

    return refused
