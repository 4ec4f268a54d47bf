"""``%byzerllm params [GROUP] [WORD …]``: the keys that a cell may hold, or those that have the words."""

from __future__ import annotations

from .dispatch import Context, Parser


def parser() -> Parser:
    """Which group of keys, and what to look for."""
    parser = Parser("params")
    parser.add_argument(
        "words", nargs="*", metavar="word", help="setup, infer, train, sft, sfft, csv, … or what to look for"
    )
    return parser


def call(context: Context) -> None:
    """Print a table: key, type, default, unit, meaning."""
    from ..parameters import search_text

    print(search_text(context.options.words))
