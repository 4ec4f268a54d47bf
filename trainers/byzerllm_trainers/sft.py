"""Supervised fine-tuning: conversations, loss on the assistant's tokens and their end token only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from byzerllm_adapters import conversations, registry
from byzerllm_adapters.errors import ByzerError

from .corpus import messages_of
from .finetuning import add_adapter, load_base, trained_in
from .job_folder import Record
from .own_partitions import partition_counts
from .packing import GroupedRows, Plan
from .recipe import Job, dealt, eval_layout
from .tokenise import held_out_shards, tokenise
from .vocabulary import fit_vocabulary

if TYPE_CHECKING:
    from .optimization_parameters import SftParameters
    from .train_parameters import TrainParameters


class SupervisedFineTuning:
    """The recipe of ``pretrainedModelType="sft/NAME"``."""

    def prepare(self, job: Job) -> Record:
        """Tokenise the rows; an answer that ``max_seq_length`` cuts off whole is counted, not trained."""
        tokenizer, limit = self.tokenizer(job), job.request.train.sft.max_seq_length
        shards, held_out = tokenise(job, lambda rows: _encode(rows, tokenizer, limit))
        unused = int((shards.targets == 0).sum())
        plan = self.plan(job)  # refuses data without anything to learn
        self.held_out(job)
        counts = {
            "examples": len(shards) - unused,
            "examples_cut_off": unused,
            "tokens": int(shards.lengths.sum()),
            "supervised_tokens": int(shards.targets.sum()),
        }
        return counts | ({"held_out": len(held_out)} if held_out else {}) | partition_counts(shards, plan)

    def plan(self, job: Job) -> Plan:
        """Rows of similar length share a step, unless ``sft.group_by_length`` says otherwise."""
        return dealt(job, partial(GroupedRows, grouped=job.request.loop.group_by_length))

    def held_out(self, job: Job) -> Plan | None:
        """The rows to evaluate on."""
        shards = held_out_shards(job)
        return GroupedRows(shards, eval_layout(job)) if shards else None

    def epochs(self, job: Job) -> float:
        """``sft.num_train_epochs``."""
        return _sft(job).num_train_epochs

    def steps_per_epoch(self, job: Job, plan: Plan) -> int:
        """All rows."""
        return plan.steps_per_epoch

    def model(self, job: Job) -> Any:
        """Load the base: frozen below an adapter, or whole, as ``sft.finetuning_type`` says."""
        base, parameters = load_base(job.request), _sft(job)
        fit_vocabulary(base, self.tokenizer(job), job)
        return base if parameters.whole else add_adapter(base, parameters)

    def about_model(self, job: Job) -> Record:
        """The precision that it is trained in."""
        return {"precision": trained_in(job.request)}

    def tokenizer(self, job: Job) -> Any:
        """Return the base's tokenizer with a chat template: its own, or the adapter's."""
        train = job.request.train
        return registry.find(train.family).load_tokenizer(_model_dir(train))


def _encode(rows: Iterator[Mapping[str, Any]], tokenizer: Any, max_length: int) -> Iterator[conversations.Encoded]:
    """Yield each row's ids and loss mask."""
    first = next(rows, None)
    if first is None:
        raise ByzerError("the table has no rows", do="give a table with at least one row")
    kind = conversations.detect_format(first.keys())
    for messages in messages_of(chain([first], rows), kind):
        yield conversations.encode_conversation(tokenizer, messages, max_length)


def _sft(job: Job) -> SftParameters:
    return job.request.train.sft


def _model_dir(train: TrainParameters) -> str:
    assert train.local_model_dir is not None, "checked when the job was made"
    return train.local_model_dir
