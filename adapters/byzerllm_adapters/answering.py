"""Many requests to a model that is loaded here: together where its adapter can, else one after another."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from byzerllm_adapters.contract import Answer, answer_stream
from byzerllm_adapters.errors import ByzerError, with_place


def answer_many(
    model: Any, tokenizer: Any, requests: Sequence[Mapping[str, Any]], cancelled: threading.Event
) -> Sequence[Answer | ByzerError]:
    """Return each request's whole answer, or why there is none, in their order.

    Args:
        model: As an adapter's `init_model` returned it.
        tokenizer: The same.
        requests: `ins`, `his` and the keywords of `stream_chat`, each.
        cancelled: Ends the generation soon when it is set; of what was not begun there is no answer then.
    """
    if hasattr(model, "chat_many"):
        found: Sequence[Answer | ByzerError] = model.chat_many(tokenizer, requests, cancelled)
        return found
    return [_one(model, tokenizer, dict(request)) for request in requests if not cancelled.is_set()]


def _one(model: Any, tokenizer: Any, request: dict[str, Any]) -> Answer | ByzerError:
    ins, his = request.pop("ins"), request.pop("his")
    try:
        *_, last = answer_stream(model.stream_chat(tokenizer, ins, his, **request))
    except Exception as error:  # noqa: BLE001 - a user's adapter may raise anything; it is this request's alone
        return with_place(error)
    return last
