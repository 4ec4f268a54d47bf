"""What stands in for a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from byzerllm_adapters.errors import ByzerError


class FakeModel:
    """A deployed model that answers with three words and keeps what it was asked."""

    name = "chat"

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.fails_with: BaseException | None = None

    def named(self, name: str | None) -> FakeModel:
        if name not in (None, "chat"):
            raise ByzerError(f"no model {name!r}", where="deployed: chat", do='did you mean "chat"?')
        return self

    def stream(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        self.requests.append(dict(request))
        for text in ("The", "The red"):
            time.sleep(0.001)
            yield {"text": text, "extra": {}}
        if self.fails_with:
            raise self.fails_with
        yield {"text": "The red stone.", "extra": {"generated_tokens_count": 4, "finish_reason": "stop"}}
