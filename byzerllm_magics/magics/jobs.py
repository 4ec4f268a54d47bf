"""``%byzerllm jobs``: training jobs, as a table."""

from __future__ import annotations

from typing import Any

from .dispatch import Context, Parser


def parser() -> Parser:
    """No argument."""
    return Parser("jobs")


def call(context: Context) -> Any:
    """Return a DataFrame, one row a job, the newest first."""
    from ..cluster.jobs import table

    return table(context.session.jobs())
