"""What every live view shares: its files and the still picture that it covers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import anywidget
import traitlets

STATIC: Final = Path(__file__).parent / "static"


class LiveView(anywidget.AnyWidget):  # type: ignore[misc]  # anywidget is untyped for mypy, see pyproject.toml
    """A view that a page renders from its traits.

    `hides` is the CSS class of the still picture shown beside it (`LiveOutput.show`): a page that renders
    the view hides that picture, a page that cannot (no kernel any more) leaves it visible.
    """

    hides = traitlets.Unicode("").tag(sync=True)
