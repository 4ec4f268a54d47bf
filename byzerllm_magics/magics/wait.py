"""``%byzerllm wait JOB``: wait for a job's end."""

from __future__ import annotations

from ..widgets.job_state import ACTIVE
from .dispatch import Context, Parser
from .waiting import wait_for


def parser() -> Parser:
    """Which job."""
    parser = Parser("wait")
    parser.add_argument("job", help="its name, or its folder")
    return parser


def call(context: Context) -> None:
    """Wait; interrupting leaves the job running."""
    job = context.session.job(context.options.job)
    if job.state in ACTIVE:
        context.session.connect()
    wait_for(job)
