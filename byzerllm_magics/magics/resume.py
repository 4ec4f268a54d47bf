"""``%byzerllm resume JOB``: go on with a job that was stopped, failed, or lost its cluster."""

from __future__ import annotations

from .dispatch import Context, Parser


def parser() -> Parser:
    """Which job."""
    parser = Parser("resume")
    parser.add_argument("job", help="its name, or its folder")
    parser.add_argument("--epochs", type=float, metavar="N", help="train to N epochs in all, also if it has finished")
    parser.add_argument("--max-steps", type=int, metavar="N", help="train to N steps in all, also if it has finished")
    parser.add_argument("--workers", type=int, metavar="N", help="go on with N workers; each step keeps its rows")
    parser.add_argument("-o", "--output", metavar="NAME", help="bind the job to this variable")
    return parser


def call(context: Context) -> None:
    """Start the job again from its last checkpoint, and show it."""
    from ..live import JobView

    context.session.connect()
    job = context.session.job(context.options.job)
    options = context.options
    job.resume(epochs=options.epochs, max_steps=options.max_steps, workers=options.workers)
    context.bind(context.options.output, job)
    JobView(job).show()
