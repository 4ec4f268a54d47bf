"""How well a model does on a table: its loss, its greedy answers, and what they are worth."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters import registry
from byzerllm_adapters.conversations import Encoded, encode_rows
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rows import detect_format

from .. import evaluation
from ..bad_rows import placed
from ..engine import Rank
from ..job_folder import Record
from ..loss import NextToken
from ..packing import GroupedRows, Layout, NothingToLearn, PackedStream, Plan
from ..shards import Shards, write_shards
from .answers import Answers, Metric, Question, ask, messages_of, questions_of, scores_of

if TYPE_CHECKING:
    import pyarrow as pa

NO_LIMIT = 1 << 20
"""Tokens of a row where neither the user nor the model's configuration has a limit."""

WINDOW = 1024
"""Tokens of documents that see each other, where the user has no word: the same for models of any context."""

TOGETHER = 1000
"""Rows that are tokenised at once."""


@dataclass(frozen=True)
class Evaluating:
    """How models are evaluated: the keys of ``EvaluateParameters`` of the same names."""

    family: str = "auto"
    max_seq_length: int | None = None
    max_new_tokens: int = 256
    rows: int = 8
    dtype: str = "auto"
    trust_remote_code: bool = False


def evaluate_folder(
    folder: Path, table: pa.Table, how: Evaluating, metric: Metric | None = None
) -> Iterator[str | Record]:
    """Evaluate the model (or adapter) of a folder.

    Yields what it is doing, and last a record: ``loss`` (mean over all supervised tokens), ``perplexity``,
    ``token_accuracy`` (share of those predicted right), ``tokens`` (supervised), ``rows_cut`` (to the length limit),
    ``seconds``; with a metric ``score`` (mean over the answers), ``unanswered``, and lists of one item a row:
    ``predictions``, ``references``, ``scores``, ``errors``.

    Args:
        folder: What ``localModelDir`` takes.
        table: Rows as for training: conversations, or ``text``.
        how: The limits.
        metric: What an answer is worth; None: no answers are asked for.

    Raises:
        ByzerError: the model does not load, a row does not fit, no token is supervised, no question was answered, or
            the metric failed.
    """
    begun = time.monotonic()
    rows = table.to_pylist()
    questions = questions_of(rows) if metric is not None else []
    yield "loading"
    options = {"dtype": how.dtype, "trust_remote_code": str(how.trust_remote_code).lower()}
    model, tokenizer = registry.find(how.family).init_model(str(folder), options)
    yield f"loss of {len(rows):,} rows"
    found = _loss(model, tokenizer, rows, how)
    if metric is not None:
        answers = None
        for answers in ask(model, tokenizer, questions, how.max_new_tokens):
            if isinstance(answers, str):
                yield answers
        assert isinstance(answers, Answers), "it comes last"
        found |= scored(answers, questions, metric)
    yield {**found, "seconds": round(time.monotonic() - begun, 3)}


def check_rows(table: pa.Table, metric: Metric | None) -> Metric | None:
    """Check a table before any model is loaded; return the metric, None where rows hold no answers to compare with.

    Raises:
        ByzerError: the table has no rows, is of no known format, or a row does not fit.
    """
    if not table.num_rows:
        raise ByzerError("the table has no rows", where="in inputTable", do="give a table with at least one row")
    kind = detect_format(table.column_names)
    if kind == "text":
        return None
    rows = table.to_pylist()
    if metric is None:
        for _ in messages_of(iter(rows), kind):
            pass
    else:
        questions_of(rows)
    return metric


def score_only(answers: Answers, questions: Sequence[Question], metric: Metric) -> Iterator[str | Record]:
    """Yield the record of answers that were given elsewhere; see `scored`."""
    yield scored(answers, questions, metric)


def scored(answers: Answers, questions: Sequence[Question], metric: Metric) -> Record:
    """Return a record of answers: ``score``, ``unanswered``, and the lists of `evaluate_folder`.

    Raises:
        ByzerError: the metric failed, or there is no answer at all.
    """
    scores = scores_of(answers, questions, metric)
    known = [score for score in scores if score is not None]
    if not known:
        first = next(error for error in answers.errors if error is not None)
        raise ByzerError(f"not one of {len(scores)} questions was answered: {first.splitlines()[0]}")
    return {
        "score": math.fsum(known) / len(known),
        "unanswered": len(scores) - len(known),
        "predictions": answers.predictions,
        "references": [question.reference for question in questions],
        "scores": scores,
        "errors": answers.errors,
    }


def _loss(model: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]], how: Evaluating) -> Record:
    """Return the facts about the loss, computed as in training."""
    context = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    is_text = detect_format(rows[0]) == "text"
    limit = how.max_seq_length or min(context or NO_LIMIT, WINDOW if is_text else NO_LIMIT)
    layout = Layout(rows=how.rows, accumulation=1, world=1, seed=0)
    with tempfile.TemporaryDirectory() as place:
        shards, cut = _shards(Path(place), tokenizer, rows, None if is_text else limit)
        try:
            plan: Plan = PackedStream(shards, layout, limit) if is_text else GroupedRows(shards, layout)
        except NothingToLearn as error:
            raise ByzerError(error.what, where="in inputTable", do="check the rows, or raise max_seq_length") from None
        measured = evaluation.evaluate(model, plan, Rank(0, 1), NextToken())
        model.eval()  # it leaves a model as training takes it
        tokens = sum(plan.counts(index)[0] for index in range(plan.steps_per_epoch))
    loss = measured["eval_loss"]
    return {
        "loss": loss,
        "perplexity": round(math.exp(loss), 4) if loss < 700 else math.inf,
        "token_accuracy": measured["eval_accuracy"],
        "tokens": tokens,
        "rows_cut": cut,
    }


def _shards(place: Path, tokenizer: Any, rows: Sequence[Mapping[str, Any]], limit: int | None) -> tuple[Shards, int]:
    """Tokenise rows as training does; return them, and how many were longer than ``limit`` tokens.

    Args:
        place: A folder to write to.
        tokenizer: The model's.
        rows: Conversations, or with no limit documents.
        limit: Where conversations are cut.
    """
    cut = 0

    def examples() -> Iterator[Encoded]:
        nonlocal cut
        kind = "text" if limit is None else detect_format(rows[0].keys())
        for begin in range(0, len(rows), TOGETHER):
            found = encode_rows(tokenizer, rows[begin : begin + TOGETHER], kind)
            for number, example in enumerate(found, begin):
                if isinstance(example, ByzerError):
                    raise placed(example, f"row {number}", kind)
                cut += limit is not None and len(example.ids) > limit
                yield Encoded(example.ids[:limit], example.mask[:limit])

    return write_shards(place, examples()), cut
