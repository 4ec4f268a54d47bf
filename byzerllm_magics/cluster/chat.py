"""A conversation with a deployed model: what was said, and the answer that is arriving."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from byzerllm_adapters.contract import Message

from .deployments import Deployment


@dataclass
class Conversation:
    """Turns so far; ``messages`` may begin with a system message."""

    messages: list[Message] = field(default_factory=list)


class Answer(str):
    """An answer's text, with ``metadata``: model, input_tokens_count, generated_tokens_count, finish_reason,
    first_token_time and time_cost (milliseconds, as seen from this kernel), speed (tokens a second).
    """

    metadata: dict[str, Any]

    def __new__(cls, text: str, metadata: dict[str, Any]) -> Answer:
        """Make the text and attach what is known about it."""
        answer = super().__new__(cls, text)
        answer.metadata = metadata
        return answer


class Exchange:
    """One question to a model. Iterate for the pieces of the answer; `answer` is what has arrived.

    Whatever ends it (the model, an interrupt, an error), what arrived is kept in the conversation; ending
    early frees the replica.

    Args:
        deployment: Who is asked.
        conversation: What was said before; gets this exchange.
        text: The question, taken literally.
        options: ``temperature``, ``top_p``, ``max_length``, ``generation.X``.
    """

    def __init__(
        self, deployment: Deployment, conversation: Conversation, text: str, options: Mapping[str, Any]
    ) -> None:
        self._deployment, self._conversation, self._question = deployment, conversation, text
        self._options = dict(options)
        self._text = ""
        self._extra: dict[str, Any] = {}
        self._asked = self._first = self._ended = 0.0

    def __iter__(self) -> Iterator[str]:
        """Yield pieces as they arrive."""
        request = {"instruction": self._question, "history": list(self._conversation.messages), **self._options}
        self._asked = time.perf_counter()
        stream = self._deployment.stream(request)
        try:
            for item in stream:
                text = item["text"]
                piece = text[len(self._text) :] if text.startswith(self._text) else text
                self._first = self._first or (time.perf_counter() if text else 0.0)
                self._text, self._extra = text, item["extra"]
                if piece:
                    yield piece
        finally:
            self._ended = time.perf_counter()
            close = getattr(stream, "close", None)
            if close:
                close()
            if self._text:
                self._conversation.messages += [
                    Message(role="user", content=self._question),
                    Message(role="assistant", content=self._text),
                ]

    @property
    def answer(self) -> Answer:
        """The answer so far, and its metadata."""
        seconds = (self._ended or time.perf_counter()) - self._asked if self._asked else 0.0
        tokens = self._extra.get("generated_tokens_count")
        metadata = {
            "model": self._deployment.name,
            **self._extra,
            "first_token_time": round(1000 * (self._first - self._asked), 1) if self._first else None,
            "time_cost": round(1000 * seconds, 1),
            "speed": round(tokens / seconds, 1) if tokens and seconds else None,
        }
        return Answer(self._text, metadata)

    def summary(self) -> str:
        """One line: tokens, tokens a second, time to the first token."""
        metadata = self.answer.metadata
        parts = [
            f"{metadata['generated_tokens_count']} tokens" if metadata.get("generated_tokens_count") else "",
            f"{metadata['speed']:g} tokens/s" if metadata["speed"] else "",
            f"first token {metadata['first_token_time']:.0f} ms" if metadata["first_token_time"] else "",
            "cut at the length limit" if metadata.get("finish_reason") == "length" else "",
        ]
        return " · ".join(part for part in parts if part)


class Chats:
    """One kernel's conversations, by the name of the model."""

    def __init__(self) -> None:
        self._by_model: dict[str, Conversation] = {}

    def ask(
        self,
        deployment: Deployment,
        text: str,
        *,
        new: bool = False,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> Exchange:
        """Return the next exchange with a model; the arguments are those of `Session.chat`."""
        if new or system is not None:
            self.forget(deployment.name)
        conversation = self._by_model.setdefault(deployment.name, Conversation())
        if system is not None:
            conversation.messages.append(Message(role="system", content=system))
        given = {"temperature": temperature, "generation.max_new_tokens": max_tokens}
        return Exchange(
            deployment, conversation, text, {key: value for key, value in given.items() if value is not None}
        )

    def forget(self, model: str) -> None:
        """Begin a new conversation with a model at its next question."""
        self._by_model.pop(model, None)

    def clear(self) -> None:
        """Forget all of them."""
        self._by_model.clear()
