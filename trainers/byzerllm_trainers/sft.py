"""Supervised fine-tuning with LoRA: conversations, loss on the assistant's tokens and their end token only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from byzerllm_adapters import conversations, registry
from byzerllm_adapters.conversations import Encoded, Message
from byzerllm_adapters.errors import ByzerError

from .engine import precision
from .job_folder import Record
from .own_partitions import partition_counts
from .packing import GroupedRows, Plan
from .parts import Batch, Row, as_rows
from .recipe import Job, dealt, eval_layout
from .tokenise import held_out_shards, tokenise

if TYPE_CHECKING:
    from .optimization_parameters import SftParameters
    from .train_parameters import TrainParameters

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""The frozen base's weights are in what the run computes in."""


class SupervisedFineTuning:
    """The recipe of ``pretrainedModelType="sft/NAME"``."""

    def prepare(self, job: Job) -> Record:
        """Tokenise the rows; an answer that ``max_seq_length`` cuts off whole is counted, not trained."""
        tokenizer, limit = self.tokenizer(job), job.request.train.sft.max_seq_length
        tokenised = tokenise(job, lambda names: Conversations(tokenizer, conversations.detect_format(names), limit))
        shards = tokenised.train
        unused = int((shards.targets == 0).sum())
        plan = self.plan(job)  # refuses data without anything to learn
        self.held_out(job)
        counts = {
            "examples": len(shards) - unused,
            "examples_cut_off": unused,
            "tokens": int(shards.lengths.sum()),
            "supervised_tokens": int(shards.targets.sum()),
        }
        return counts | tokenised.counts | partition_counts(shards, plan)

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
        """Load the base, frozen, with a LoRA adapter on every linear layer but the head."""
        from peft import LoraConfig, get_peft_model

        parameters = _sft(job)
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

    def tokenizer(self, job: Job) -> Any:
        """Return the base's tokenizer with a chat template: its own, or the adapter's."""
        train = job.request.train
        return registry.find(train.family).load_tokenizer(_model_dir(train))


@dataclass(frozen=True)
class Conversations:
    """Encodes rows as conversations (see `Encoder`)."""

    tokenizer: Any
    format: str
    max_length: int
    columns: ClassVar[Sequence[str] | None] = None

    def encode(self, batch: Batch) -> list[Encoded | ByzerError]:
        """Return each row's ids and loss mask."""
        rows = [self._messages(row) for row in as_rows(batch)]
        fitting = [row for row in rows if not isinstance(row, ByzerError)]
        encoded = iter(conversations.encode_conversations(self.tokenizer, fitting, self.max_length))
        found = [row if isinstance(row, ByzerError) else next(encoded) for row in rows]
        return [self._placed(each) if isinstance(each, ByzerError) else each for each in found]

    def _messages(self, row: Row) -> list[Message] | ByzerError:
        try:
            return conversations.to_messages(row, self.format)
        except ByzerError as error:
            return error

    def _placed(self, error: ByzerError) -> ByzerError:
        return ByzerError(error.what, where=f"(format {self.format})", do=error.do)


def _sft(job: Job) -> SftParameters:
    return job.request.train.sft


def _model_dir(train: TrainParameters) -> str:
    assert train.local_model_dir is not None, "checked when the job was made"
    return train.local_model_dir
