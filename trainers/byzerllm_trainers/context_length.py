"""How many tokens a model can look at, by its own configuration, and rows that are longer."""

from __future__ import annotations

from pathlib import Path

from .job_folder import Record, read_json


def beyond_context(model_dir: str | None, longest: int) -> Record:
    """Return ``{"longest", "context"}`` for the job's events where rows are longer than the model's context, else {}.

    Args:
        model_dir: The folder of the model that the job begins with.
        longest: Tokens of the longest row.
    """
    config = Path(model_dir or "") / "config.json"
    if not config.is_file():  # an adapter's folder, or a function makes the model
        return {}
    context = read_json(config).get("max_position_embeddings")
    return {"longest": longest, "context": context} if isinstance(context, int) and longest > context else {}
