"""Several conversations at once through `model.generate`: prompts padded on the left, each answer cut at its end.

A step of a small model costs about the same for one row as for dozens, so that many questions asked together are
answered several times faster than one after another (docs/log.md has the figures).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from byzerllm_adapters.contract import Answer
from byzerllm_adapters.engines.decoding import Decoder
from byzerllm_adapters.engines.generate import Cancelled, Sampling, generation_config, room_for, stops_of, turn
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.templates import Frame

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROWS = 32
"""Rows that are generated together at most: on two cores more are hardly faster, and on a GPU they take memory."""


@dataclass
class _Row:
    """One answer in the making; `room` is the most tokens that it may have, `first` when the first of them came."""

    prompt: Sequence[int]
    room: int
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False
    first: float | None = None

    @property
    def left(self) -> int:
        """How many more tokens there may be."""
        return 0 if self.stopped else self.room - len(self.tokens)

    def take(self, tokens: list[int], stops: list[int]) -> None:
        """Add what was generated, up to the token that ends the answer."""
        end = next((place for place, token in enumerate(tokens) if token in stops), None)
        self.stopped = end is not None
        self.tokens += tokens if end is None else tokens[: end + 1]


def generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    frame: Frame,
    *,
    cancelled: threading.Event,
) -> list[Answer | ByzerError]:
    """Return what follows each prompt, in their order; a prompt without room for an answer gives its error.

    Args:
        prompts: Token ids; prompts of similar length are generated together.
        sampling: For all of them.
        frame: What the template writes around an answer.
        cancelled: Stops the generation within a token when it is set; what was generated so far is returned.
    """
    started, stops = time.monotonic(), stops_of(model, tokenizer, frame)
    results: list[_Row | ByzerError] = []
    for prompt in prompts:
        try:
            results.append(_Row(prompt, room_for(model, len(prompt), sampling)))
        except ByzerError as error:
            results.append(error)
    # the longest prompts first: a batch that does not fit into memory shows at once
    waiting = sorted((row for row in results if isinstance(row, _Row)), key=lambda row: -len(row.prompt))
    while waiting and not cancelled.is_set():
        batch, waiting = waiting[:ROWS], waiting[ROWS:]
        first = _FirstToken()
        for row, tokens in zip(batch, _generate(model, batch, sampling, stops, cancelled, first=first), strict=True):
            row.take(tokens, stops)
            row.first = row.first or first.at
        # no row may go beyond its context, so that the batch ended with the shortest room; the others go on
        waiting += [row for row in batch if row.left]
    milliseconds = (time.monotonic() - started) * 1000
    return [
        row
        if isinstance(row, ByzerError)
        else _answer(
            row,
            Decoder(tokenizer, frame.lead, frame.gap),
            {
                "first_token_time": milliseconds if row.first is None else (row.first - started) * 1000,
                "time_cost": milliseconds,
                **sampling.facts(),
            },
        )
        for row in results
    ]


class _FirstToken(StoppingCriteria):  # type: ignore[misc]
    """Remembers when the first tokens of a batch came; it stops nothing."""

    def __init__(self) -> None:
        self.at: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Return for each sequence that it goes on."""
        self.at = self.at or time.monotonic()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _generate(
    model: PreTrainedModel,
    rows: list[_Row],
    sampling: Sampling,
    stops: list[int],
    cancelled: threading.Event,
    *,
    first: _FirstToken,
) -> list[list[int]]:
    """Return the next tokens of each row, at most as many as every row has room for."""
    prompts = [[*row.prompt, *row.tokens] for row in rows]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    with turn(model):
        output = model.generate(
            ids,
            attention_mask=mask,
            generation_config=generation_config(sampling, min(row.left for row in rows), stops),
            stopping_criteria=StoppingCriteriaList([Cancelled(cancelled), first]),
        )
    generated: list[list[int]] = output[:, width:].tolist()
    return generated


def _answer(row: _Row, decoder: Decoder, facts: dict[str, Any]) -> Answer:
    text = ""
    for token in row.tokens[: len(row.tokens) - row.stopped]:
        text = decoder.add(token)
    return text, {
        "input_tokens_count": len(row.prompt),
        "generated_tokens_count": len(row.tokens),
        "finish_reason": "stop" if row.stopped else "cancelled" if row.left else "length",
        **facts,
    }
