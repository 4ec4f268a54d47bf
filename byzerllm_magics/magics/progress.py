"""One line in a cell that says what is going on, and goes away at the end."""

from __future__ import annotations

import html
import threading
import uuid

from ..widgets.live_output import kernel_publish

SOON = 1.0
"""Seconds after which what still goes on is worth a line."""


class Progress:
    """A line of text that changes. Without a notebook nothing is shown."""

    def __init__(self) -> None:
        self._publish = kernel_publish()
        self._id = f"byzer-{uuid.uuid4().hex[:12]}"
        self._shown = ""
        self._later: threading.Timer | None = None

    def soon(self, text: str) -> None:
        """Show the line if nothing else was shown, and nothing has ended, a second from now."""
        self._wait_no_more()
        self._later = threading.Timer(SOON, self._replace, [text])
        self._later.daemon = True
        self._later.start()

    def show(self, text: str) -> None:
        """Replace the line."""
        self._wait_no_more()
        self._replace(text)

    def _replace(self, text: str) -> None:
        if self._publish is None or text == self._shown:
            return
        markup = f'<div style="opacity:.75">▸ {html.escape(text)}</div>'
        self._send({"text/plain": f"▸ {text}", "text/html": markup})
        self._shown = text

    def close(self) -> None:
        """Take the line away."""
        self._wait_no_more()
        if self._shown:
            self._send({"text/plain": "", "text/html": ""})

    def _wait_no_more(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _send(self, data: dict[str, str]) -> None:
        assert self._publish is not None, "`show` returned before"
        self._publish(dict(data), {}, display_id=self._id, update=bool(self._shown))
