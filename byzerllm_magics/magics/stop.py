"""``%byzerllm stop JOB``: save a checkpoint and end a job."""

from __future__ import annotations

from .dispatch import Context, Parser


def parser() -> Parser:
    """Which job."""
    parser = Parser("stop")
    parser.add_argument("job", help="its name, or its folder")
    return parser


def call(context: Context) -> None:
    """Ask the job to end after its current step."""
    context.session.connect()
    job = context.session.job(context.options.job)
    job.stop()
    print(
        f"Job {job.name} saves a checkpoint and ends after its current step; "
        f'"%byzerllm resume {job.name}" goes on with it.'
    )
