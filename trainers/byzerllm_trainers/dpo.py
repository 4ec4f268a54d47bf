"""Preference tuning with an adapter: of two answers to a prompt, the chosen one becomes the likelier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from byzerllm_adapters.conversations import Begun, Encoded, begin_conversations
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.preference_rows import Pair, check_columns, to_pair

from .bad_rows import check_rows
from .job_folder import Record
from .loss import Objective
from .own_partitions import partition_counts
from .packing import Plan
from .pairs import PairedRows
from .parts import Batch, Row
from .preferences import Preferences
from .recipe import Job, dealt, eval_layout
from .sft import SupervisedFineTuning
from .tokenise import held_out_shards, tokenise


class PreferenceTuning(SupervisedFineTuning):
    """The recipe of ``pretrainedModelType="dpo/NAME"``: sft's but for the rows and what the loss is.

    The base without its adapter is the reference, so there is always one (`DpoParameters.finetuning_type`).
    """

    def format_of(self, columns: Iterable[str]) -> str:
        """Preferences."""
        check_columns(columns)
        return "preferences"

    def check(self, rows: Iterable[Row], kind: str, *, drop: bool) -> None:
        """Every row is a preference."""
        check_rows(rows, to_pair, kind, drop=drop)

    def prepare(self, job: Job) -> Record:
        """Tokenise the pairs; one that ``max_seq_length`` leaves without a difference is counted, not trained."""
        tokenizer, limit = self.tokenizer(job), job.request.train.fine_tuning.max_seq_length
        tokenised = tokenise(job, lambda kind: Preferred(tokenizer, kind, limit))
        shards = tokenised.train
        unused = int((shards.targets == 0).sum()) // 2
        plan = self.plan(job)  # refuses data without anything to learn
        self.held_out(job)
        counts = {
            "format": tokenised.format,
            "pairs": len(shards) // 2 - unused,
            "pairs_cut_off": unused,
            **tokenised.dropped,
            "tokens": len(shards.tokens),
            "supervised_tokens": int(shards.targets.sum()),
        }
        return counts | tokenised.counts | partition_counts(shards, plan)

    def plan(self, job: Job) -> Plan:
        """Pairs of similar length share a step, unless ``dpo.group_by_length`` says otherwise."""
        return dealt(job, partial(PairedRows, grouped=job.request.loop.group_by_length))

    def held_out(self, job: Job) -> Plan | None:
        """The pairs to evaluate on."""
        shards = held_out_shards(job)
        return PairedRows(shards, eval_layout(job)) if shards else None

    def objective(self, job: Job) -> Objective:
        """The pairs, as ``dpo.beta`` and ``dpo.loss_type`` say."""
        keys = job.request.train.dpo
        return Preferences(keys.beta, keys.loss_type)


@dataclass(frozen=True)
class Preferred:
    """Encodes a row as the chosen and the rejected conversation, one behind the other (see `Encoder`).

    The loss is on what answers the prompt, not on earlier turns. Where the limit leaves no difference to learn, neither
    side has a loss.
    """

    tokenizer: Any
    format: str
    max_length: int
    columns: ClassVar[Sequence[str] | None] = None
    per_row: ClassVar[int] = 2

    def begin(self, batch: Batch) -> Begun:
        """Begin with each row's two examples, or its error twice."""
        read = [_pair(row) for row in batch.rows()]
        pairs = [pair for pair in read if not isinstance(pair, ByzerError)]
        sides = [[*pair.prompt, *answer] for pair in pairs for answer in (pair.chosen, pair.rejected)]
        tools = [pair.tools for pair in pairs for _ in range(2)]
        firsts = [len(pair.prompt) for pair in pairs for _ in range(2)]
        begun = begin_conversations(self.tokenizer, sides, self.max_length, tools, firsts)
        return lambda: _both_sides(read, begun())


def _both_sides(read: Sequence[Pair | ByzerError], sides: Sequence[Encoded | ByzerError]) -> list[Encoded | ByzerError]:
    encoded = iter(sides)
    rows = [(row, row) if isinstance(row, ByzerError) else (next(encoded), next(encoded)) for row in read]
    return [side for chosen, rejected in rows for side in _sides(chosen, rejected)]


def _pair(row: Mapping[str, Any] | ByzerError) -> Pair | ByzerError:
    if isinstance(row, ByzerError):
        return row
    try:
        return to_pair(row)
    except ByzerError as error:
        return error


def _sides(chosen: Encoded | ByzerError, rejected: Encoded | ByzerError) -> Sequence[Encoded | ByzerError]:
    """Return both sides of a row; neither is an example where one does not fit, or has a loss where they are equal."""
    if isinstance(chosen, ByzerError):
        return chosen, chosen
    if isinstance(rejected, ByzerError):
        return rejected, rejected
    sides = chosen, rejected
    if chosen.ids == rejected.ids or not all(any(side.mask[1:]) for side in sides):
        return [Encoded(side.ids, [False] * len(side.ids)) for side in sides]
    return sides
