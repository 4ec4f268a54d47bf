"""``%byzerllm logs JOB``: what a job's processes printed."""

from __future__ import annotations

from .dispatch import Context, Parser


def parser() -> Parser:
    """Which job, and how much."""
    parser = Parser("logs")
    parser.add_argument("job", help="its name, or its folder")
    parser.add_argument("--rank", type=int, metavar="R", help="only this worker's")
    parser.add_argument("-n", "--lines", type=int, default=50, help="last lines of each log (50)")
    return parser


def call(context: Context) -> None:
    """Print the logs' ends."""
    options = context.options
    print(context.session.job(options.job).logs(options.rank, options.lines))
