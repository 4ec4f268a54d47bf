"""``%byzerllm undeploy MODEL``: delete a deployed model."""

from __future__ import annotations

from .dispatch import Context, Parser


def parser() -> Parser:
    """Which model."""
    parser = Parser("undeploy")
    parser.add_argument("model", help="its udfName")
    return parser


def call(context: Context) -> None:
    """Delete it and free what it holds."""
    context.session.undeploy(context.options.model)
    print(f"Model {context.options.model} is gone.")
