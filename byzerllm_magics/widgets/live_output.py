"""One output that is live while its kernel lives and still readable everywhere afterwards.

| who looks                       | while it runs                                    | after `settle` |
|---------------------------------|--------------------------------------------------|----------------|
| JupyterLab with the kernel      | the live view, which hides the still             | static twin    |
| JupyterLab reopened without it  | the still: picture and summary                   | static twin    |
| GitHub, nbconvert, a diff       | the still                                        | static twin    |
| IPython in a terminal           | nothing                                          | summary, once  |

A page reload cuts updates of a display id off, but not a view's traits: the live view goes on there and a
later `settle` does not reach that page, whose saved notebook then holds the last still before the reload.
Showing the job anew mends it.
"""

from __future__ import annotations

import base64
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from byzerllm_magics.widgets.twins import Bundle
    from byzerllm_magics.widgets.view import LiveView

WIDGET_VIEW: Final = "application/vnd.jupyter.widget-view+json"
SNAPSHOT_SECONDS: Final = 30.0


class Publish(Protocol):
    """How a bundle reaches the notebook; `update` replaces what was shown under `display_id`."""

    def __call__(self, data: dict[str, Any], metadata: dict[str, Any], *, display_id: str, update: bool) -> None:
        """Send one display message."""


class LiveOutput:
    """A live view and its static twin under one display id; see this module's table.

    Works from any thread: a display id finds its own cell, unlike `print`.

    Args:
        publish: Sends the messages; by default the running kernel's, and without a kernel there are none:
            `settle` prints the twin's text.
        clock: Seconds, for the pace of snapshots.

    """

    def __init__(self, publish: Publish | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._publish = publish or kernel_publish()
        self._clock = clock
        self._lock = threading.Lock()
        self._id = f"byzer-{uuid.uuid4().hex[:12]}"
        self._still = ""  # display id of the snapshots, and the CSS class of their element
        self._snapshot_at = float("-inf")
        self._settled = False

    def show(self, widget: Any, bundle: Bundle, *, hider: LiveView | None = None) -> None:
        """Publish the widget and its twin, in the cell that runs now.

        Args:
            widget: Any ipywidgets widget.
            bundle: Its static twin at this moment; with a hider it has a "text/html".
            hider: The view, `widget` itself or one inside it, that hides the still where it is alive. With it
                the twin follows the widget as an output of its own, which `snapshot` refreshes without
                touching the widget; without it the twin is part of the widget's output.

        """
        view = {WIDGET_VIEW: {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}}
        if hider is None:
            data, metadata = bundle
            self._send(data | view, metadata, self._id, update=False)
            return
        self._still = f"{self._id}-still"
        hider.hides = self._still
        # One twin, not two: the still says it all to viewers that know no widgets.
        self._send({"text/plain": ""} | view, {}, self._id, update=False)
        self._send(_still(bundle, self._still), {}, self._still, update=False)

    def snapshot(self, bundle: Callable[[], Bundle]) -> None:
        """Refresh the still if the last refresh is `SNAPSHOT_SECONDS` old; `bundle` is called only then."""
        with self._lock:
            now = self._clock()
            if not self._still or self._settled or now - self._snapshot_at < SNAPSHOT_SECONDS:
                return
            self._snapshot_at = now
            self._send(_still(bundle(), self._still), {}, self._still, update=True)

    def settle(self, bundle: Bundle) -> None:
        """Replace the live view by its twin, for good, and empty the still. Later calls change nothing."""
        with self._lock:
            if self._settled:
                return
            self._settled = True
            if self._publish is None:
                print(bundle[0]["text/plain"])
            self._send(*bundle, self._id, update=True)
            if self._still:
                self._send({"text/html": "", "text/plain": ""}, {}, self._still, update=True)

    def _send(self, data: dict[str, Any], metadata: dict[str, Any], display_id: str, *, update: bool) -> None:
        if self._publish is not None:
            self._publish(data, metadata, display_id=display_id, update=update)


def _still(bundle: Bundle, css_class: str) -> dict[str, Any]:
    """Return a twin in an element that a live view can hide by its class."""
    data, _ = bundle
    markup = f'<div class="{css_class}">{data["text/html"]}</div>'
    return {"text/html": markup, "text/plain": data["text/plain"]}


def kernel_publish() -> Publish | None:
    """Return what publishes through the running kernel; None in a terminal or a script."""
    from IPython import get_ipython

    shell = get_ipython()
    return None if getattr(shell, "kernel", None) is None else _publish_to_kernel


def _publish_to_kernel(data: dict[str, Any], metadata: dict[str, Any], *, display_id: str, update: bool) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    # JSON knows no bytes; IPython's own formatters encode pictures this way.
    ready = {
        kind: base64.b64encode(value).decode() if isinstance(value, bytes) else value for kind, value in data.items()
    }
    publisher = InteractiveShell.instance().display_pub
    publisher.publish(data=ready, metadata=metadata, transient={"display_id": display_id}, update=update)
