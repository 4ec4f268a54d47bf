"""``%byzerllm params [GROUP]``: the keys that a cell may hold."""

from __future__ import annotations

from .dispatch import Context, Parser

GROUPS = ("setup", "infer", "train", "sft", "sfft")


def parser() -> Parser:
    """Which group of keys."""
    parser = Parser("params")
    parser.add_argument("group", nargs="?", choices=GROUPS, help="all groups by default")
    return parser


def call(context: Context) -> None:
    """Print a table: key, type, default, unit, meaning."""
    from ..parameters import help_text

    groups = [context.options.group] if context.options.group else GROUPS
    print("\n\n".join(f"{group}\n{help_text(group)}" for group in groups))
