"""One line in a cell that says what is going on, and goes away at the end."""

from __future__ import annotations

import html
import uuid

from ..widgets.live_output import kernel_publish

PACE_SECONDS = 0.25
"""At most four updates a second."""


class Progress:
    """A line of text that changes. Without a notebook nothing is shown."""

    def __init__(self) -> None:
        self._publish = kernel_publish()
        self._id = f"byzer-{uuid.uuid4().hex[:12]}"
        self._shown = ""

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._publish is None or text == self._shown:
            return
        markup = f'<div style="opacity:.75">▸ {html.escape(text)}</div>'
        self._send({"text/plain": f"▸ {text}", "text/html": markup})
        self._shown = text

    def close(self) -> None:
        """Take the line away."""
        if self._shown:
            self._send({"text/plain": "", "text/html": ""})

    def _send(self, data: dict[str, str]) -> None:
        assert self._publish is not None, "`show` returned before"
        self._publish(dict(data), {}, display_id=self._id, update=bool(self._shown))
