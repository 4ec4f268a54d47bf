"""Questions with their reference answers, what a model says to them, and how good that is."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from byzerllm_adapters.contract import Message
from byzerllm_adapters.errors import ByzerError, with_place
from byzerllm_adapters.rows import detect_format, to_messages

Metric = Callable[[str, str], float]
"""What a prediction is worth beside its reference; more is better."""

AT_ONCE = 64
"""Questions that are handed to the model at a time: progress is told and an interrupt heard in between."""


@dataclass(frozen=True)
class Question:
    """A conversation up to the answer that is asked for.

    Attributes:
        history: The turns before the question.
        question: The last user turn.
        reference: The answer that the row holds.
    """

    history: list[Message]
    question: str
    reference: str

    def as_arguments(self, max_new_tokens: int) -> dict[str, Any]:
        """Return the keywords of ``stream_chat`` that ask for the greedy answer."""
        return {
            "ins": self.question,
            "his": self.history,
            "temperature": 0.0,
            "max_new_tokens": max_new_tokens,
        }

    def as_request(self, max_new_tokens: int) -> dict[str, Any]:
        """Return the same as a deployed model is asked."""
        return {
            "instruction": self.question,
            "history": self.history,
            "temperature": 0.0,
            "generation.max_new_tokens": max_new_tokens,
        }


@dataclass(frozen=True)
class Answers:
    """What a model said, a row a question; where ``errors`` has a text there is no answer, and no score."""

    predictions: list[str | None]
    errors: list[str | None]


def messages_of(rows: Iterable[Mapping[str, Any]], kind: str) -> Iterator[list[Message]]:
    """Yield each row's conversation.

    Raises:
        ByzerError: a row does not fit; it is named.
    """
    for number, row in enumerate(rows):
        try:
            yield to_messages(row, kind)
        except ByzerError as error:
            raise ByzerError(error.what, where=f"row {number} (format {kind})", do=error.do) from None


def questions_of(rows: Sequence[Mapping[str, Any]]) -> list[Question]:
    """Return the last question of each row's conversation, with its answer as the reference.

    Raises:
        ByzerError: a row does not fit its format, or does not end with a question and its answer.
    """
    found = []
    for number, turns in enumerate(messages_of(iter(rows), detect_format(rows[0]))):
        if [turn["role"] for turn in turns[-2:]] != ["user", "assistant"]:
            raise ByzerError(
                "the conversation does not end with a question and its answer",
                where=f"row {number}",
                do='drop the row, or write metric="none" for the loss alone',
            )
        *history, question, answer = turns
        found.append(Question(history, question["content"], answer["content"]))
    return found


def ask(model: Any, tokenizer: Any, questions: Sequence[Question], max_new_tokens: int) -> Iterator[str | Answers]:
    """Yield how many questions were answered, and last the greedy answers of a model that is loaded here."""
    from byzerllm_adapters.answering import answer_many

    found: list[Any] = []
    for begin in range(0, len(questions), AT_ONCE):
        requests = [each.as_arguments(max_new_tokens) for each in questions[begin : begin + AT_ONCE]]
        found += answer_many(model, tokenizer, requests, threading.Event())
        yield f"{len(found):,} of {len(questions):,} answers"
    yield Answers(
        [None if isinstance(each, ByzerError) else each[0] for each in found],
        [str(each) if isinstance(each, ByzerError) else None for each in found],
    )


def exact_match(prediction: str, reference: str) -> float:
    """Return 1 when both are the same but for space around them, else 0."""
    return float(prediction.strip() == reference.strip())


def scores_of(answers: Answers, questions: Sequence[Question], metric: Metric) -> list[float | None]:
    """Return what each answer is worth; None where there is none.

    Raises:
        ByzerError: the metric raised, or returned no number; with the row.
    """
    pairs = zip(answers.predictions, questions, strict=True)
    return [
        None if prediction is None else _score(metric, prediction, question.reference, row)
        for row, (prediction, question) in enumerate(pairs)
    ]


def _score(metric: Metric, prediction: str, reference: str, row: int) -> float:
    name = getattr(metric, "__name__", "metric")
    try:
        value = metric(prediction, reference)
    except Exception as error:
        placed = with_place(error)
        raise ByzerError(f"{name} at row {row}: {placed.what}", where=placed.where, do="correct the metric") from error
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if math.isnan(score):
        do = "return a number for every prediction"
        raise ByzerError(f"{name} returned {value!r} at row {row}, which is no number", do=do)
    return score
