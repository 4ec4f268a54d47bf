"""``%byzerllm jobs``: training jobs compared, as a table."""

from __future__ import annotations

from typing import Any

from .dispatch import Context, Parser


def parser() -> Parser:
    """How to sort, and what to bind."""
    parser = Parser("jobs")
    parser.add_argument("--by", metavar="COLUMN", help="the best by this column first, e.g. eval_loss")
    parser.add_argument("-o", "--output", metavar="NAME", help="bind the DataFrame to this variable")
    return parser


def call(context: Context) -> Any:
    """Return a DataFrame, one row a job, the newest first."""
    from ..leaderboard import leaderboard

    board = leaderboard(context.session.jobs(), context.options.by)
    context.bind(context.options.output, board)
    return board
