"""``%byzerllm shutdown``: end the embedded cluster."""

from __future__ import annotations

from .dispatch import Context, Parser


def parser() -> Parser:
    """Whether running jobs end too."""
    parser = Parser("shutdown")
    parser.add_argument("--force", action="store_true", help="even while a job runs; its checkpoints are kept")
    return parser


def call(context: Context) -> None:
    """Disconnect, and end the cluster's processes."""
    ended = context.session.shutdown(force=context.options.force)
    print("The embedded cluster has ended." if ended else "Disconnected; no embedded cluster was running.")
