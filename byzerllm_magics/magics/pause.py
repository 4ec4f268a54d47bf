"""``%byzerllm pause MODEL --for JOB``: a model lends its place to a job, and comes back at the job's end."""

from __future__ import annotations

from .dispatch import Context, Parser


def parser() -> Parser:
    """Which model, and for which job."""
    parser = Parser("pause")
    parser.add_argument("model", help="its udfName")
    parser.add_argument("--for", dest="job", metavar="JOB", required=True, help="the job that needs what it holds")
    return parser


def call(context: Context) -> None:
    """Take the model away, and have it brought back."""
    options = context.options
    context.session.pause(options.model, options.job)
    print(f"Model {options.model} is paused; it comes back when job {options.job} has ended.")
