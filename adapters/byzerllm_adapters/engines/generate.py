"""One conversation at a time through `model.generate`, streamed token by token.

A thread generates and puts token ids into a queue; whoever iterates over the answer decodes them. Another
request for the same model waits for its turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from byzerllm_adapters.contract import Answer, ChatStream
from byzerllm_adapters.engines.decoding import Decoder
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.templates import Frame

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HONOURED = ("max_new_tokens", "top_k")
"""The `generation.X` keywords of a request, beside the contract's own parameters."""

NOT_FOR_TEXT = ("image",)
"""Keywords that other families honour: a text model leaves them out, and its answer says so in `ignored`."""

_turns: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()
_turns_guard = threading.Lock()


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn, and how long it may get.

    Args:
        max_length: The most tokens of prompt and answer together.
        max_new_tokens: The most tokens of the answer; None: as many as `max_length` leaves.
        temperature: 0 or less takes the likeliest token always.
        top_p: Sample from the likeliest tokens that together have this probability, in (0, 1].
        top_k: Sample from this many tokens; 0: no limit.
        ignored: What the request asked for beside that and a text model has no use for.
    """

    max_length: int = 4090
    max_new_tokens: int | None = None
    temperature: float = 0.1
    top_p: float = 0.95
    top_k: int = 0
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ranges = (
            ("max_length", self.max_length >= 1, "at least 1"),
            ("max_new_tokens", self.max_new_tokens is None or self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature < float("inf"), "a number"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (no limit) or more"),
        )
        for name, fine, wanted in ranges:
            if not fine:
                raise ByzerError(f"{name} is {getattr(self, name)}", do=f"it has to be {wanted}")

    def facts(self) -> dict[str, Any]:
        """Return what an answer's `extra` says about its sampling."""
        return {"ignored": list(self.ignored)} if self.ignored else {}

    @classmethod
    def of(
        cls, *, max_length: Any, top_p: Any, temperature: Any, ignored: Sequence[str] = (), **kwargs: Any
    ) -> Sampling:
        """Build it from a request, whose numbers may be texts.

        Args:
            max_length: As `stream_chat` takes it, and so are the others.
            top_p: Likewise.
            temperature: Likewise.
            ignored: What is known already to be without use.
            **kwargs: Its other keywords.

        Raises:
            ByzerError: A keyword is not one of `HONOURED`, or a value is no number or out of range.
        """
        ignored = (*ignored, *(f"generation.{name}" for name in NOT_FOR_TEXT if name in kwargs))
        kwargs = {name: value for name, value in kwargs.items() if name not in NOT_FOR_TEXT}
        if unknown := sorted(set(kwargs) - set(HONOURED)):
            names = ", ".join(f"generation.{name}" for name in unknown)
            raise ByzerError(
                f"this model does not know {names}",
                do=f"it knows {', '.join(f'generation.{name}' for name in HONOURED)}",
            )
        return cls(
            max_length=_number(int, "max_length", max_length),
            top_p=_number(float, "top_p", top_p),
            temperature=_number(float, "temperature", temperature),
            ignored=ignored,
            **{name: _number(int, name, value) for name, value in kwargs.items()},
        )


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    sampling: Sampling,
    frame: Frame,
) -> ChatStream:
    """Start generating what follows `ids`; the stream yields after every token that completes a character.

    Args:
        frame: What the template writes around an answer: its space is not shown, its end token stops.

    Raises:
        ByzerError: The prompt leaves no room for an answer. What goes wrong while generating is raised by the
            stream.
    """
    room = room_for(model, len(ids), sampling)
    stops = stops_of(model, tokenizer, frame)
    run = _Run(queue=SimpleQueue(), cancelled=threading.Event())
    config = generation_config(sampling, room, stops)
    threading.Thread(target=run.work, args=(model, list(ids), config), name="generate", daemon=True).start()
    decoder = Decoder(tokenizer, frame.lead, frame.gap)
    facts = {"input_tokens_count": len(ids), "generated_tokens_count": 0, **sampling.facts()}
    return ChatStream(_answers(run, decoder, facts, room, stops), cancel=run.cancelled.set)


@dataclass(frozen=True)
class _Run:
    """One generation: token ids arrive in the queue, then an exception if there was one, then None."""

    queue: SimpleQueue[int | BaseException | None]
    cancelled: threading.Event
    started: float = field(default_factory=time.monotonic)

    def work(self, model: PreTrainedModel, ids: list[int], config: GenerationConfig) -> None:
        try:
            with turn(model):
                if not self.cancelled.is_set():
                    prompt = torch.tensor([ids], device=model.device)
                    model.generate(
                        prompt,
                        attention_mask=torch.ones_like(prompt),
                        generation_config=config,
                        streamer=_Tokens(self.queue),
                        stopping_criteria=StoppingCriteriaList([Cancelled(self.cancelled)]),
                    )
        except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is read
            self.queue.put(error)
        finally:
            self.queue.put(None)

    def elapsed(self) -> float:
        """Return the milliseconds since the request."""
        return (time.monotonic() - self.started) * 1000

    def tokens(self) -> Iterator[int]:
        """Yield the tokens as they come; raise what the thread raised."""
        while (item := self.queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item


def _answers(run: _Run, decoder: Decoder, extra: dict[str, Any], room: int, stops: list[int]) -> Iterator[Answer]:
    last, shown = None, ""
    for last in run.tokens():
        if extra["generated_tokens_count"] == 0:
            extra["first_token_time"] = run.elapsed()
        extra["generated_tokens_count"] += 1
        if last in stops:
            continue
        text = decoder.add(last)
        if text != shown:
            shown = text
            yield text, dict(extra)
    if last in stops:
        reason = "stop"
    elif extra["generated_tokens_count"] < room and run.cancelled.is_set():
        reason = "cancelled"
    else:
        reason = "length"
    spent = run.elapsed()
    yield shown, {"first_token_time": spent, **extra, "time_cost": spent, "finish_reason": reason}


class _Tokens(BaseStreamer):  # type: ignore[misc]
    """Puts what `generate` hands out into a queue, but for the prompt, which comes first."""

    def __init__(self, queue: SimpleQueue[int | BaseException | None]) -> None:
        self.queue, self.prompt_seen = queue, False

    def put(self, value: torch.Tensor) -> None:
        if self.prompt_seen:
            for token in value.flatten().tolist():
                self.queue.put(token)
        self.prompt_seen = True

    def end(self) -> None:
        """Nothing is held back."""


class Cancelled(StoppingCriteria):  # type: ignore[misc]
    """Stops every sequence once the event is set."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Return for each sequence whether it is to stop."""
        return torch.full((input_ids.shape[0],), self.event.is_set(), dtype=torch.bool, device=input_ids.device)


def room_for(model: PreTrainedModel, prompt_length: int, sampling: Sampling) -> int:
    """Return the most tokens that the answer may have."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limit = min(sampling.max_length, context or sampling.max_length)
    if prompt_length >= limit:
        name = "the model's context" if limit == context else "max_length"
        raise ByzerError(
            f"the prompt has {prompt_length} tokens, and {name} is {limit}, the answer included",
            do="shorten the question or the conversation, or start a new one",
        )
    return min(limit - prompt_length, sampling.max_new_tokens or limit)


def stops_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, frame: Frame) -> list[int]:
    """Return the tokens that end an answer: the template's, the tokenizer's and the model's own."""
    own = getattr(model.generation_config, "eos_token_id", None)
    known = {tokenizer.eos_token_id, frame.end_id, *(own if isinstance(own, list) else [own])}
    return sorted(token for token in known if token is not None)


def generation_config(sampling: Sampling, room: int, stops: list[int]) -> GenerationConfig:
    """Return transformers' configuration; what is left unset there, the model folder's own decides."""
    greedy = sampling.temperature <= 0
    return GenerationConfig(
        max_new_tokens=room,
        do_sample=not greedy,
        temperature=1.0 if greedy else sampling.temperature,
        top_p=1.0 if greedy else sampling.top_p,
        top_k=50 if greedy else sampling.top_k,  # 50 is transformers' "not set"
        num_beams=1,
        use_cache=True,
        eos_token_id=stops or None,
        pad_token_id=stops[0] if stops else 0,  # never used: there is one sequence
    )


def turn(model: PreTrainedModel) -> threading.Lock:
    """Return the lock that whoever generates with a model holds."""
    with _turns_guard:
        return _turns.setdefault(model, threading.Lock())


def _number(kind: type[int] | type[float], name: str, value: Any) -> Any:
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ByzerError(f"{name} is {value!r}, not a number") from error
    if isinstance(value, float) and number != value:
        raise ByzerError(f"{name} is {value!r}, not a whole number")
    return number
