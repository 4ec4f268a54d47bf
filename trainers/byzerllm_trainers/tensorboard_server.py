"""TensorBoard of a running job, at an address that costs nothing until somebody opens it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STARTING = b'<meta http-equiv="refresh" content="3"><title>starting</title>TensorBoard is starting \xe2\x80\xa6'
"""Shown for the seconds that TensorBoard takes to start; then the page comes again by itself."""


class TensorBoardServer:
    """Listens on the loopback address of this node; the first visitor starts TensorBoard on the same port.

    TensorBoard asks nobody for a password, so it is not to be reached from elsewhere but by a tunnel. It ends with
    this process.

    Args:
        folder: Holds the event files, now or later.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        asked = self._asked = threading.Event()

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(STARTING)
                asked.set()

            def log_message(self, *_: object) -> None:
                """A visit is nothing to log."""

        self._listener = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = int(self._listener.server_address[1])
        threading.Thread(target=self._listener.serve_forever, name="tensorboard-listener", daemon=True).start()
        threading.Thread(target=self._start, name="tensorboard", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is, for a browser on this node or behind a tunnel to it."""
        return f"http://127.0.0.1:{self.port}/"

    def _start(self) -> None:
        """Wait for the first visitor, then leave the port to TensorBoard."""
        self._asked.wait()
        from tensorboard import program

        board = program.TensorBoard()
        board.configure(logdir=str(self._folder), host="127.0.0.1", port=self.port, load_fast="false")
        self._listener.shutdown()
        self._listener.server_close()
        board.launch()
