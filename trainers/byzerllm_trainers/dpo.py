"""Preference tuning with an adapter: of two answers to a prompt, the chosen one becomes the likelier."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.conversations import Encoded, encode_conversation
from byzerllm_adapters.preference_rows import Pair, check_columns, to_pair

from .bad_rows import BadRows, check_rows
from .corpus import data_format
from .job_folder import Record
from .loss import Objective
from .own_partitions import partition_counts
from .packing import Plan
from .pairs import PairedRows
from .preferences import Preferences
from .recipe import Job, dealt, eval_layout
from .sft import SupervisedFineTuning
from .tokenise import held_out_shards, tokenise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .data_files import Row


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
        keys = job.request.train.fine_tuning
        tokenizer, limit, bad = self.tokenizer(job), keys.max_seq_length, BadRows(drop=keys.on_bad_row == "drop")

        def encode(rows: Iterable[Row], kind: str) -> Iterator[Encoded | None]:
            for sides in bad.convert(rows, lambda row: _sides(to_pair(row), tokenizer, limit), kind):
                yield from sides or (None, None)

        shards, held_out = tokenise(job, encode, per_row=2)
        unused = int((shards.targets == 0).sum()) // 2
        plan = self.plan(job)  # refuses data without anything to learn
        self.held_out(job)
        counts = {
            "format": data_format(job.folder, job.request.train.local_data_dir, self.format_of),
            "pairs": len(shards) // 2 - unused,
            "pairs_cut_off": unused,
            **bad.counts(),
            "tokens": int(shards.lengths.sum()),
            "supervised_tokens": int(shards.targets.sum()),
        }
        return counts | ({"held_out": len(held_out) // 2} if held_out else {}) | partition_counts(shards, plan)

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


def _sides(pair: Pair, tokenizer: Any, max_length: int) -> list[Encoded]:
    """Return the chosen and the rejected conversation; the loss is on what answers the prompt, not on earlier turns.

    Where the limit leaves no difference to learn, neither side has a loss.
    """
    sides = [
        encode_conversation(tokenizer, [*pair.prompt, *answer], max_length, pair.tools, first=len(pair.prompt))
        for answer in (pair.chosen, pair.rejected)
    ]
    if sides[0].ids == sides[1].ids or not all(any(side.mask[1:]) for side in sides):
        return [Encoded(side.ids, [False] * len(side.ids)) for side in sides]
    return sides
