"""The live chat view: one prompt and the answer that streams in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import traitlets

from byzerllm_magics.widgets.view import STATIC, LiveView

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE_SECONDS: Final = 0.05
"""At most twenty messages a second, however fast the model is."""

TEXT_SECONDS: Final = 0.5
"""How far the answer that a reloaded page starts from may lag behind."""


class ChatView(LiveView):
    """One exchange. `append` pieces as they come, then `finish`.

    While the answer streams, only its new pieces travel, as messages `{type, offset, piece}`; the whole text
    follows as a trait at most twice a second. `offset` counts UTF-16 units, as the page's strings do, so that
    a page which missed a piece sees the gap and waits for the text.

    Traits:
        user: The prompt.
        text: The answer so far, Markdown that the page does not trust.
        stats: The footer, e.g. "42 tokens · 310 tokens/s · first token 21 ms", or an error's first line.
        state: "waiting", "streaming", "done", "stopped" or "failed".
    """

    _esm = STATIC / "chat.js"
    _css = STATIC / "chat.css"

    user = traitlets.Unicode("").tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    stats = traitlets.Unicode("").tag(sync=True)
    state = traitlets.Enum(["waiting", "streaming", "done", "stopped", "failed"], "waiting").tag(sync=True)

    def __init__(self, user: str = "", clock: Callable[[], float] = time.monotonic, **traits: Any) -> None:
        self._clock = clock
        self._pieces: list[str] = []
        self._unsent: list[str] = []
        self._offset = 0
        self._piece_sent = self._text_sent = float("-inf")
        super().__init__(user=user, **traits)

    @property
    def answer(self) -> str:
        """The whole answer so far; `text` may lag behind it while it streams."""
        return "".join(self._pieces)

    def append(self, piece: str) -> None:
        """Add the next piece of the answer. One thread at a time appends and finishes."""
        if not piece:
            return
        self.state = "streaming"
        self._pieces.append(piece)
        self._unsent.append(piece)
        now = self._clock()
        if now - self._piece_sent >= PIECE_SECONDS:
            self._piece_sent = now
            self._send_unsent()
        if now - self._text_sent >= TEXT_SECONDS:
            self._text_sent = now
            self.text = self.answer

    def finish(self, stats: str = "", state: str = "done") -> None:
        """Show the complete answer and its footer; `state` is "done", "stopped" or "failed"."""
        with self.hold_sync():
            self.text, self.stats, self.state = self.answer, stats, state

    def _send_unsent(self) -> None:
        piece = "".join(self._unsent)
        self._unsent.clear()
        self.send({"type": "piece", "offset": self._offset, "piece": piece})
        self._offset += len(piece.encode("utf-16-le")) // 2
