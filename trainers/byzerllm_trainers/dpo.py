"""Preference tuning with LoRA: of two answers to a prompt, the chosen one becomes likelier than the rejected one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.conversations import Encoded, encode_conversation
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.preference_rows import Pair, check_columns, to_pair

from .job_folder import Record
from .loss import Objective
from .own_partitions import partition_counts
from .packing import Plan
from .pairs import PairedRows
from .preferences import Preferences
from .recipe import Job, dealt, eval_layout
from .sft import SupervisedFineTuning, fine_tuning, with_adapter
from .tokenise import held_out_shards, tokenise

if TYPE_CHECKING:
    import pyarrow as pa


class PreferenceTuning(SupervisedFineTuning):
    """The recipe of ``pretrainedModelType="dpo/NAME"``: sft's but for the rows and what the loss is."""

    def check(self, table: pa.Table) -> None:
        """Every row is a preference."""
        check_columns(table.column_names)
        for number, row in enumerate(table.to_pylist()):
            with _row(number):
                to_pair(row)

    def prepare(self, job: Job) -> Record:
        """Tokenise the pairs; one that ``max_seq_length`` leaves without a difference is counted, not trained."""
        tokenizer, limit = self.tokenizer(job), fine_tuning(job).max_seq_length
        shards, held_out = tokenise(job, lambda rows: _encode(rows, tokenizer, limit), per_row=2)
        unused = int((shards.targets == 0).sum()) // 2
        plan = self.plan(job)  # refuses data without anything to learn
        self.held_out(job)
        counts = {
            "pairs": len(shards) // 2 - unused,
            "pairs_cut_off": unused,
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

    def model(self, job: Job) -> Any:
        """Load the base with an adapter: the base alone is the reference.

        Raises:
            ByzerError: the keys ask for a model without an adapter.
        """
        model = with_adapter(job)
        if not hasattr(model, "peft_config"):
            raise ByzerError(
                "preference tuning trains an adapter: without one, nothing of the base is left as the reference",
                do="leave out the keys that train every weight, or fine-tune with sft/… first",
            )
        return model

    def objective(self, job: Job) -> Objective:
        """The pairs, as ``dpo.beta`` and ``dpo.loss_type`` say."""
        keys = job.request.train.dpo
        return Preferences(keys.beta, keys.loss_type)


def _encode(rows: Iterator[Mapping[str, Any]], tokenizer: Any, max_length: int) -> Iterator[Encoded]:
    """Yield each pair's chosen and rejected conversation; the loss is on what answers the prompt, not on earlier turns.

    A pair of which the limit leaves no difference to learn is yielded without a loss on either side.
    """
    for number, row in enumerate(rows):
        if number == 0:
            check_columns(row)
        with _row(number):
            sides = _sides(to_pair(row), tokenizer, max_length)
        yield from sides


def _sides(pair: Pair, tokenizer: Any, max_length: int) -> list[Encoded]:
    sides = [
        encode_conversation(tokenizer, [*pair.prompt, *answer], max_length, first=len(pair.prompt))
        for answer in (pair.chosen, pair.rejected)
    ]
    if sides[0].ids == sides[1].ids or not all(any(side.mask[1:]) for side in sides):
        return [Encoded(side.ids, [False] * len(side.ids)) for side in sides]
    return sides


@contextmanager
def _row(number: int) -> Iterator[None]:
    """Let an error name the row."""
    try:
        yield
    except ByzerError as error:
        raise ByzerError(error.what, where=f"row {number}", do=error.do) from None
