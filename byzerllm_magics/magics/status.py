"""``%byzerllm status``: the cluster, its models and its jobs."""

from __future__ import annotations

from typing import Any

from ..widgets.job_state import ACTIVE
from .dispatch import Context, Parser


def parser() -> Parser:
    """No argument."""
    return Parser("status")


def call(context: Context) -> Any:
    """Show the setup card, with the deployed models and the jobs that run."""
    from .setup_card import SetupCard

    session = context.session
    running = [job for job in session.jobs() if job.state in ACTIVE]
    return SetupCard(session.connect(start=False), session.settings, session.models(), running)
