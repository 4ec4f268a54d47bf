"""Supervised fine-tuning: conversations, loss on the assistant's tokens and their end token only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from byzerllm_adapters import conversations, registry
from byzerllm_adapters.contract import Message
from byzerllm_adapters.conversations import Begun, begin_rows
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.outlines import refuse_without_answer
from byzerllm_adapters.rows import detect_format, to_messages, tools_of
from byzerllm_adapters.templates import ROLE_KEYS, fix_roles, frame

from .bad_rows import check_rows
from .context_length import beyond_context
from .finetuning import add_adapter, load_base, trained_in
from .job_folder import Record
from .loss import NextToken, Objective
from .own_partitions import partition_counts
from .packed_rows import PackedRows, check_isolation
from .packing import GroupedRows, Plan
from .parts import Batch, Row
from .recipe import Job, dealt, eval_layout
from .shards import Longs, Shards
from .tokenise import held_out_shards, tokenise
from .vocabulary import fit_vocabulary

if TYPE_CHECKING:
    from .train_parameters import TrainParameters

AT_ONCE = 1 << 20
"""Tokens that are looked at at a time."""


TRAILING = 4
"""A template may have so many tokens behind the end token, such as a line's end."""


class SupervisedFineTuning:
    """The recipe of ``pretrainedModelType="sft/NAME"``."""

    def format_of(self, columns: Iterable[str]) -> str:
        """One of the formats of conversations."""
        kind = detect_format(columns)
        if kind == "text":
            to_messages({}, kind)  # raises why not
        return kind

    def check(self, rows: Iterable[Row], kind: str, *, drop: bool) -> None:
        """Every row is a conversation."""

        def check_row(row: Mapping[str, Any]) -> None:
            refuse_without_answer(to_messages(row, kind))
            tools_of(row)

        check_rows(rows, check_row, kind, drop=drop)

    def prepare(self, job: Job) -> Record:
        """Tokenise the rows; an answer that ``max_seq_length`` cuts off whole is counted, not trained."""
        tokenizer, limit = self.tokenizer(job), job.request.train.fine_tuning.max_seq_length
        tokenised = tokenise(job, lambda kind: Conversations(tokenizer, kind, limit))
        shards = tokenised.train
        unused = int((shards.targets == 0).sum())
        plan = self.plan(job)  # refuses data without anything to learn
        _refuse_endless(shards, tokenizer, limit)
        self.held_out(job)
        counts = {
            "format": tokenised.format,
            "examples": len(shards) - unused,
            "examples_cut_off": _count_cut(shards, _end_ids(tokenizer), limit),
            **tokenised.dropped,
            "tokens": len(shards.tokens),
            "supervised_tokens": int(shards.targets.sum()),
        }
        longest = beyond_context(job.request.train.local_model_dir, int(shards.lengths.max()))
        return counts | longest | tokenised.counts | partition_counts(shards, plan)

    def plan(self, job: Job) -> Plan:
        """Rows of similar length share a step, or are packed into one, as the cell says."""
        keys = job.request.train.sft
        if keys.packing:
            return dealt(job, partial(PackedRows, width=keys.max_seq_length))
        return dealt(job, partial(GroupedRows, grouped=job.request.loop.group_by_length))

    def held_out(self, job: Job) -> Plan | None:
        """The rows to evaluate on."""
        shards = held_out_shards(job)
        return GroupedRows(shards, eval_layout(job)) if shards else None

    def epochs(self, job: Job) -> float:
        """``num_train_epochs``."""
        return job.request.train.fine_tuning.num_train_epochs

    def steps_per_epoch(self, job: Job, plan: Plan) -> int:
        """All rows."""
        return plan.steps_per_epoch

    def model(self, job: Job) -> Any:
        """Load the base: frozen below an adapter, or whole, as ``finetuning_type`` says."""
        base, keys = load_base(job.request), job.request.train.fine_tuning
        fit_vocabulary(base, self.tokenizer(job), job)
        model = base if keys.whole else add_adapter(base, keys)
        if job.request.train.sft.packing:
            check_isolation(model)
        return model

    def about_model(self, job: Job) -> Record:
        """The precision that it is trained in."""
        return {"precision": trained_in(job.request)}

    def objective(self, job: Job) -> Objective:
        """The answers' tokens."""
        return NextToken()

    def prompt(self, tokenizer: Any, text: str) -> list[int]:
        """A conversation that the text begins."""
        return conversations.encode_prompt(tokenizer, [Message(role="user", content=text)])

    def tokenizer(self, job: Job) -> Any:
        """Return the base's tokenizer with a chat template: its own, or the adapter's with the names in the job.

        Raises:
            ByzerError: names are given for a template that has no place for them.
        """
        train = job.request.train
        tokenizer = registry.find(train.family).load_tokenizer(_model_dir(train))
        given = {name: getattr(train.fine_tuning, name) for name in ROLE_KEYS}
        fix_roles(tokenizer, {name: value for name, value in given.items() if value})
        return tokenizer


@dataclass(frozen=True)
class Conversations:
    """Encodes rows as conversations (see `Encoder`)."""

    tokenizer: Any
    format: str
    max_length: int
    columns: ClassVar[Sequence[str] | None] = None
    per_row: ClassVar[int] = 1

    def begin(self, batch: Batch) -> Begun:
        """Begin with each row's ids and loss mask."""
        return begin_rows(self.tokenizer, batch.rows(), self.format, self.max_length)


def _refuse_endless(shards: Shards, tokenizer: Any, limit: int) -> None:
    """Refuse data in which no answer is learned to its end: the model would never stop.

    Raises:
        ByzerError: ``max_seq_length`` cuts off the end of every answer.
    """
    ends = _end_ids(tokenizer)
    parts = (slice(begin, begin + AT_ONCE) for begin in range(0, len(shards.tokens), AT_ONCE))
    if not any(np.isin(shards.tokens[part][shards.mask[part]], ends).any() for part in parts):
        raise ByzerError(
            f"no answer is learned to its end token: max_seq_length={limit} cuts all of them off",
            do="write a larger max_seq_length, or shorten the rows",
        )


def _count_cut(shards: Shards, ends: Longs, limit: int) -> int:
    """Return how many examples ``max_seq_length`` has cut: as long as it, without an end token among the last ones."""
    full = np.flatnonzero(shards.lengths >= limit)
    last = shards.offsets[full + 1][:, None] - np.arange(1, min(limit, TRAILING) + 1)
    return int((~np.isin(shards.tokens[last], ends).any(axis=1)).sum()) if len(full) else 0


def _end_ids(tokenizer: Any) -> Longs:
    special = [token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special]
    return np.array([*special, frame(tokenizer).end_id or -1], np.int64)


def _model_dir(train: TrainParameters) -> str:
    assert train.local_model_dir is not None, "checked when the job was made"
    return train.local_model_dir
