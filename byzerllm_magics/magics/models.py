"""``%byzerllm models``: deployed models, as a table."""

from __future__ import annotations

from typing import Any

from .dispatch import Context, Parser


def parser() -> Parser:
    """No argument."""
    return Parser("models")


def call(context: Context) -> Any:
    """Return a DataFrame, one row a model, the last deployed first."""
    import pandas as pd

    from ..cluster.pausing import paused

    rows = [
        {
            "model": model.name,
            "owner": model.owner,
            "status": model.status,
            "replicas": model.replicas,
            "folder": model.describe()["localModelDir"] if model.status == "RUNNING" else None,
        }
        for model in context.session.models()
    ]
    for name, job in paused(context.session.jobs()):
        print(f"{name} is paused, and comes back when job {job} has ended.")
    return pd.DataFrame(rows, columns=["model", "owner", "status", "replicas", "folder"])
