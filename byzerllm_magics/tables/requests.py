"""A request to a model as SQL writes it, and the response as SQL reads it: JSON texts."""

from __future__ import annotations

import difflib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from byzerllm_adapters.errors import ByzerError

KEYS = (
    "instruction",
    "history",
    "system_msg",
    "user_role",
    "assistant_role",
    "max_length",
    "top_p",
    "temperature",
    "embedding",
    "on_error",
)
"""What a request may say, beside any `generation.X` (or `gen.X`), which reaches the adapter as `X`."""


def read_request(text: str) -> dict[str, Any]:
    """Return a request's keys; those with a null value are left out.

    Raises:
        ByzerError: it is no JSON object, has no instruction, or an unknown key (with the nearest known one).
    """
    try:
        written = json.loads(text)
    except ValueError:
        written = None
    if not isinstance(written, dict):
        raise ByzerError(
            "a model is called with a request, not with a plain text",
            do='write chat(llm_param(map("instruction", question)))',
        )
    request = {key: value for key, value in written.items() if value is not None}
    for key in request:
        if key not in KEYS and not key.startswith(("generation.", "gen.")):
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ByzerError(
                f"a request has no key {key!r}", do=f"{hint}it has {', '.join(KEYS)} and generation.X for the adapter"
            )
    if "instruction" not in request:
        raise ByzerError("the request has no instruction", do='write llm_param(map("instruction", question))')
    if request.get("on_error", "null") not in ("null", "fail"):
        raise ByzerError(f"on_error is {request['on_error']!r}", do='write "fail", or leave it out: NULL and llm_error')
    return request


def for_replica(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request as a replica takes it: the system message heads the history."""
    history = list(request.get("history", ()))
    if request.get("system_msg"):
        history.insert(0, {"role": "system", "content": str(request["system_msg"])})
    left_out = ("history", "system_msg", "on_error", "embedding")
    kept = {key: value for key, value in request.items() if key not in left_out}
    return {**kept, "instruction": str(request["instruction"]), "history": history}


def write_response(request: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """Return the JSON of an answer ``{"text", "extra"}`` to a request."""
    extra = answer["extra"]
    seconds, tokens = extra.get("time_cost", 0) / 1000, extra.get("generated_tokens_count")
    metadata = {
        "request_id": uuid.uuid4().hex,
        **extra,
        "speed": round(tokens / seconds, 1) if tokens and seconds else None,
    }
    response = {"output": answer["text"], "input": dict(request), "metadata": metadata}
    return json.dumps(response, ensure_ascii=False)
