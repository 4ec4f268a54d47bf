"""Supervised fine-tuning with LoRA: conversations, loss on the assistant's tokens and their end token only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from byzerllm_adapters import conversations, registry
from byzerllm_adapters.contract import Message
from byzerllm_adapters.errors import ByzerError

from .corpus import messages_of
from .engine import precision
from .job_folder import Record
from .loss import NextToken, Objective
from .optimization_parameters import FineTuningParameters
from .own_partitions import partition_counts
from .packed_rows import PackedRows, check_isolation
from .packing import GroupedRows, Plan
from .recipe import Job, dealt, eval_layout
from .tokenise import held_out_shards, tokenise

if TYPE_CHECKING:
    import pyarrow as pa

    from .train_parameters import TrainParameters

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""The frozen base's weights are in what the run computes in."""


class SupervisedFineTuning:
    """The recipe of ``pretrainedModelType="sft/NAME"``."""

    def check(self, table: pa.Table) -> None:
        """Every row is a conversation."""
        kind = conversations.detect_format(table.column_names)
        for _ in messages_of(iter(table.to_pylist()), kind):
            pass

    def prepare(self, job: Job) -> Record:
        """Tokenise the rows; an answer that ``max_seq_length`` cuts off whole is counted, not trained."""
        tokenizer, limit = self.tokenizer(job), fine_tuning(job).max_seq_length
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
        return fine_tuning(job).num_train_epochs

    def steps_per_epoch(self, job: Job, plan: Plan) -> int:
        """All rows."""
        return plan.steps_per_epoch

    def model(self, job: Job) -> Any:
        """Load the base with its adapter; with ``sft.packing``, one that keeps the conversations of a row apart."""
        model = with_adapter(job)
        if job.request.train.sft.packing:
            check_isolation(model)
        return model

    def objective(self, job: Job) -> Objective:
        """The answers' tokens."""
        return NextToken()

    def prompt(self, tokenizer: Any, text: str) -> list[int]:
        """A conversation that the text begins."""
        return conversations.encode_prompt(tokenizer, [Message(role="user", content=text)])

    def tokenizer(self, job: Job) -> Any:
        """Return the base's tokenizer with a chat template: its own, or the adapter's."""
        train = job.request.train
        return registry.find(train.family).load_tokenizer(_model_dir(train))


def with_adapter(job: Job) -> Any:
    """Load the base, frozen, with a LoRA adapter on every linear layer but the head."""
    from peft import LoraConfig, get_peft_model

    parameters = fine_tuning(job)
    train = job.request.train
    dtype = DTYPES[precision(job.request.loop)]
    base = registry.find(train.family).load_model(_model_dir(train), dtype=dtype)
    lora = LoraConfig(
        r=parameters.lora_rank,
        lora_alpha=parameters.lora_alpha,
        lora_dropout=parameters.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, lora)


def _encode(rows: Iterator[Mapping[str, Any]], tokenizer: Any, max_length: int) -> Iterator[conversations.Encoded]:
    """Yield each row's ids and loss mask."""
    first = next(rows, None)
    if first is None:
        raise ByzerError("the table has no rows", do="give a table with at least one row")
    kind = conversations.detect_format(first.keys())
    for messages in messages_of(chain([first], rows), kind):
        yield conversations.encode_conversation(tokenizer, messages, max_length)


def fine_tuning(job: Job) -> FineTuningParameters:
    """Return the keys that the methods which begin with a finished model share."""
    keys = job.request.train.optimization
    assert isinstance(keys, FineTuningParameters), "the recipe is found by the same name"
    return keys


def _model_dir(train: TrainParameters) -> str:
    assert train.local_model_dir is not None, "checked when the job was made"
    return train.local_model_dir
