"""``%byzerllm attach JOB``: show a job again, live, in any kernel."""

from __future__ import annotations

from .dispatch import Context, Parser


def parser() -> Parser:
    """Which job."""
    parser = Parser("attach")
    parser.add_argument("job", help="its name, or its folder")
    parser.add_argument("-o", "--output", metavar="NAME", help="bind the job to this variable")
    return parser


def call(context: Context) -> None:
    """Show the whole curve, which goes on while the job runs; connect behind it, so that its end is noticed."""
    from ..cluster import connection
    from ..live import JobView

    job = context.session.job(context.options.job)
    context.bind(context.options.output, job)
    if JobView(job).show().active:
        connection.connect_behind(context.session.settings.ray_address)
