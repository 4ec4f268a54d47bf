"""``%byzerllm params [GROUP] [WORD …]``: the keys that a cell may hold, or those that have the words."""

from __future__ import annotations

from byzerllm_adapters.registry import METHODS

from .dispatch import Context, Parser


def parser() -> Parser:
    """Which group of keys, and what to look for."""
    groups = ", ".join(("setup", "infer", "train", *METHODS))
    parser = Parser("params")
    parser.add_argument("words", nargs="*", metavar="word", help=f"{groups}, csv, … or what to look for")
    return parser


def call(context: Context) -> None:
    """Print a table: key, type, default, unit, meaning."""
    from ..parameters import search_text

    print(search_text(context.options.words))
