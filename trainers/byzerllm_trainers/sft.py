"""Supervised fine-tuning with LoRA: conversations, loss on the assistant's tokens and their end token only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from byzerllm_adapters import conversations, registry
from byzerllm_adapters.errors import ByzerError

from .corpus import messages_of, rows
from .engine import uses_bf16
from .job_folder import Record
from .packing import GroupedRows, Layout, Plan
from .recipe import Job
from .shards import open_shards, write_shards

if TYPE_CHECKING:
    from .train_parameters import SftParameters, TrainParameters


class SupervisedFineTuning:
    """The recipe of ``pretrainedModelType="sft/NAME"``."""

    def prepare(self, job: Job) -> Record:
        """Tokenise the rows; an answer that ``max_seq_length`` cuts off whole is counted, not trained."""
        train = job.request.train
        tokenizer = self.tokenizer(job)
        encoded = _encode(rows(job.folder, train.local_data_dir), tokenizer, train.sft.max_seq_length)
        shards = write_shards(job.folder.data / "shards", encoded)
        unused = int((shards.targets == 0).sum())
        layout = _layout(job)
        GroupedRows(shards, layout)  # refuses data without anything to learn
        return {
            "examples": len(shards) - unused,
            "examples_cut_off": unused,
            "tokens": int(shards.lengths.sum()),
            "supervised_tokens": int(shards.targets.sum()),
        }

    def plan(self, job: Job) -> Plan:
        """Rows of similar length share a step."""
        return GroupedRows(open_shards(job.folder.data / "shards"), _layout(job))

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
        dtype = "bfloat16" if uses_bf16(job.request.loop) else "float32"
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


def _layout(job: Job) -> Layout:
    loop = job.request.loop
    return Layout(rows=loop.rows, accumulation=loop.accumulation, world=job.request.workers, seed=loop.seed)


def _model_dir(train: TrainParameters) -> str:
    assert train.local_model_dir is not None, "checked when the job was made"
    return train.local_model_dir
