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
        ByzerError: it is no JSON object, says nothing of an instruction (one that is NULL is this row's problem; see
            `request_problem`), or has an unknown key (with the nearest known one).
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
    for problem in (*map(key_problem, request), on_error_problem(request.get("on_error"))):
        if problem:
            raise problem
    if "instruction" not in written:
        raise no_instruction()
    return request


def key_problem(key: str) -> ByzerError | None:
    """Return why a request cannot have a key; None: it can."""
    if key in KEYS or key.startswith(("generation.", "gen.")):
        return None
    near = difflib.get_close_matches(key, KEYS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ByzerError(
        f"a request has no key {key!r}", do=f"{hint}it has {', '.join(KEYS)} and generation.X for the adapter"
    )


def on_error_problem(value: object) -> ByzerError | None:
    """Return what is wrong with a request's `on_error`; None: nothing."""
    if value in (None, "null", "fail"):
        return None
    return ByzerError(f"on_error is {value!r}", do='write "fail", or leave it out: NULL and llm_error')


def no_instruction() -> ByzerError:
    """Return the error of a request that asks nothing."""
    return ByzerError("the request has no instruction", do='write llm_param(map("instruction", question))')


def request_problem(request: Mapping[str, Any], model: str) -> str | None:
    """Return why a model cannot be asked this request, where other rows may have better ones; None: it can."""
    if "instruction" not in request:
        return "the request has no instruction"
    if str(request.get("embedding", "false")).lower() == "true":
        return f"{model} does not embed: deploy an embedding model"
    if _turns(request) is None:
        return 'history is no list of {"role", "content"}'
    return None


def answer_problem(output: Any, model: str) -> str | None:
    """Return why an answer that has to be a vector is none; None: it is one."""
    try:
        vector = json.loads(output) if isinstance(output, str) else output
    except ValueError:
        vector = None
    if isinstance(vector, list) and all(isinstance(number, int | float) for number in vector):
        return None
    return f"{model} does not embed: deploy an embedding model"


def _turns(request: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the turns of a request's history, which may be a JSON text; None: it is no list of turns."""
    history = request.get("history", [])
    if isinstance(history, str):
        try:
            history = json.loads(history or "[]")
        except ValueError:
            return None
    turns: list[Any] = history if isinstance(history, list) else [None]
    return turns if all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in turns) else None


def for_replica(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request as a replica takes it: the system message heads the history."""
    history = list(_turns(request) or ())
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
        "first_token_time": None,  # an adapter need not measure it
        **extra,
        "speed": round(tokens / seconds, 1) if tokens and seconds else None,
    }
    response = {"output": answer["text"], "input": dict(request), "metadata": metadata}
    return json.dumps(response, ensure_ascii=False)
