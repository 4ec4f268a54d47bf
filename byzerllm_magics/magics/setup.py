"""``%%byzerllm setup``: settings, and the cluster; answers with a card."""

from __future__ import annotations

from typing import Any

from byzerllm_adapters.parameters import ParameterError
from byzerllm_adapters.registry import METHODS

from .cells import substituted
from .dispatch import Context, Parser


def parser() -> Parser:
    """Modes and settings stand in the cell; on a line they follow the word."""
    parser = Parser("setup", cell=True)
    parser.add_argument(
        "settings", nargs="*", help=f'a mode ({", ".join(("single", *METHODS))}) and k=v, e.g. "sfft num_gpus=2"'
    )
    return parser


def call(context: Context) -> Any:
    """Apply the settings, connect, and show the card."""
    from ..language import parse_setup
    from ..parameters import at_the_caret
    from .setup_card import SetupCard

    text = " ".join(context.options.settings) + (context.cell or "")
    setup = substituted(context, parse_setup(text), text)
    try:
        context.session.configure(setup.mode, {s.key: s.value for s in setup.settings})
    except ParameterError as error:
        raise at_the_caret(error, text, setup) from None
    info = context.session.setup()
    return SetupCard(info, context.session.settings)
