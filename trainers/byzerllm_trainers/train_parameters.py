"""The keys of a cell that trains a model: `sft/FAMILY` (fine-tuning) and `sfft/FAMILY` (pretraining).

The defaults are meant to train: the original's learning rate of 1e-8 and warmup of 3000 steps did not.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AliasChoices, Field, model_validator
from pydantic.config import JsonDict

from byzerllm_adapters.parameters import (
    JsonObject,
    ParameterError,
    Parameters,
    Problem,
    Text,
    problem,
)

LearningRate = Annotated[
    float, Field(gt=0, description="The highest learning rate of the schedule, reached after the warmup.")
]
WeightDecay = Annotated[float, Field(ge=0, description="AdamW's decoupled weight decay.")]
AdamBeta2 = Annotated[float, Field(ge=0, lt=1, description="AdamW's decay rate of the squared gradients' average.")]
TOKENS: JsonDict = {"unit": "tokens"}
STEPS: JsonDict = {"unit": "steps"}


class OptimizationParameters(Parameters):
    """What every way of training takes; a step is one update of the weights."""

    learning_rate: LearningRate = 2e-4
    weight_decay: WeightDecay = 0.0
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay rate of the gradients' average.")
    adam_beta2: AdamBeta2 = 0.999
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW's term against division by zero.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients longer than this are scaled down; 0: never.")
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the learning rate falls after the warmup."
    )
    warmup_steps: int | None = Field(
        None, ge=0, description="Length of the warmup; none: from warmup_ratio.", json_schema_extra=STEPS
    )
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="Length of the warmup as a share of all steps, if warmup_steps is none."
    )
    max_steps: int | None = Field(
        None, gt=0, description="End after so many steps; none: after all epochs.", json_schema_extra=STEPS
    )
    per_device_train_batch_size: int = Field(
        8, gt=0, description="Rows that one worker computes at a time.", json_schema_extra={"unit": "rows"}
    )
    gradient_accumulation_steps: int = Field(
        1, gt=0, description="Batches whose gradients make one step.", json_schema_extra={"unit": "batches"}
    )
    seed: int = Field(42, ge=0, description="Decides the order of the data and every other random choice.")
    bf16: bool | None = Field(None, description="Compute in bfloat16; none: where the device has it fast.")
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again instead of keeping them: less memory, more time."
    )
    save_steps: int | None = Field(
        None,
        gt=0,
        description="Write a checkpoint every so many steps; none: at the end.",
        json_schema_extra=STEPS,
    )
    save_total_limit: int = Field(
        1, gt=0, description="Checkpoints that are kept.", json_schema_extra={"unit": "checkpoints"}
    )


class SftParameters(OptimizationParameters):
    """What fine-tuning (`sft/FAMILY`) takes: LoRA on every linear layer but the head."""

    num_train_epochs: float = Field(
        1.0, gt=0, description="Times that each row is used.", json_schema_extra={"unit": "epochs"}
    )
    max_seq_length: int = Field(
        1024, gt=1, description="Longer conversations are cut to this length.", json_schema_extra=TOKENS
    )
    lora_rank: int = Field(16, gt=0, description="Rank of the LoRA matrices: more learn more and take more memory.")
    lora_alpha: float = Field(32.0, gt=0, description="The update is scaled by lora_alpha / lora_rank.")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before the LoRA matrices.")


class SfftParameters(OptimizationParameters):
    """What pretraining (`sfft/FAMILY`) takes: every weight is trained."""

    learning_rate: LearningRate = 3e-4
    weight_decay: WeightDecay = 0.1
    adam_beta2: AdamBeta2 = 0.95
    epoches: int = Field(1, gt=0, description="Times that each token is used.", json_schema_extra={"unit": "epochs"})
    steps_per_epoch: int | None = Field(
        None, gt=0, description="End an epoch after so many steps; none: all tokens.", json_schema_extra=STEPS
    )
    max_length: int = Field(
        1024,
        gt=1,
        description="Length of the rows that the tokens are packed into.",
        json_schema_extra=TOKENS,
    )
    tokenizer_path: Text | None = Field(None, description="The folder of the tokenizer; none: the model's own.")
    setup_nccl_socket_ifname_by_ip: bool = Field(
        False, description="Tell NCCL the network interface of the node's address; for mixed machines."
    )


def _training_type(value: str) -> str:
    if not re.fullmatch(r"(sft|sfft)/[^/\s]+", value):
        family = value.rpartition("/")[2] or "llama"
        do = f'write "sft/{family}" to fine-tune, "sfft/{family}" to pretrain, or action="infer" to deploy'
        raise problem("does not say how to train", do)
    return value


def _job_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        do = "use letters, digits, . _ and -, and begin with a letter or digit"
        raise problem("is not a name for a job", do)
    return value


class TrainParameters(Parameters):
    """What `run command as LLM` takes to train a model."""

    action: Literal["finetune"] = Field("finetune", description="What to do: train a model.")
    pretrained_model_type: Annotated[Text, AfterValidator(_training_type)] = Field(
        alias="pretrainedModelType",
        description="The way to train and the family: sft/llama2 fine-tunes, sfft/llama2 pretrains.",
    )
    local_model_dir: Text = Field(alias="localModelDir", description="The folder of the model to begin with.")
    local_data_dir: Text | None = Field(
        None, alias="localDataDir", description="A folder of data files, instead of inputTable."
    )
    local_path_prefix: Text = Field(
        "jobs", alias="localPathPrefix", description="The folder that gets a folder for each job."
    )
    input_table: Text | None = Field(
        None, alias="inputTable", description="The table or DataFrame variable with the data."
    )
    output_table: Text | None = Field(None, alias="outputTable", description="The name that the table of results gets.")
    name: Annotated[Text, AfterValidator(_job_name)] | None = Field(
        None, description="The name of the job; none: made from the way to train, the owner and the time."
    )
    detached: bool = Field(True, description="Return at once and let the job run; false: wait for its end.")
    keep_partition_num: bool = Field(
        False,
        alias="keepPartitionNum",
        description="Accepted; every worker gets an equal share anyway.",
    )
    deepspeed_config: JsonObject | None = Field(
        None, alias="deepspeedConfig", description="DeepSpeed's own configuration, as a JSON object."
    )
    dummy_table: str = Field(
        "command",
        validation_alias=AliasChoices("modelTable", "model"),
        description="Without effect here; accepted because Byzer asks for it.",
    )
    sft: SftParameters = Field(default_factory=SftParameters)
    sfft: SfftParameters = Field(default_factory=SfftParameters)

    @property
    def method(self) -> Literal["sft", "sfft"]:
        """The way to train, before the slash of `pretrainedModelType`."""
        return "sft" if self.pretrained_model_type.startswith("sft/") else "sfft"

    @property
    def family(self) -> str:
        """The family of the model, after the slash of `pretrainedModelType`."""
        return self.pretrained_model_type.partition("/")[2]

    @property
    def optimization(self) -> SftParameters | SfftParameters:
        """The parameters of the way to train that was chosen."""
        return self.sft if self.method == "sft" else self.sfft

    def require_data(self) -> None:
        """Check that the data is named, for a caller that does not bring it along.

        Raises:
            ParameterError: Neither `inputTable` nor `localDataDir` is given.

        """
        if self.input_table is None and self.local_data_dir is None:
            do = 'add inputTable="…" (a table or a DataFrame variable) or localDataDir="…" (a folder)'
            raise ParameterError((Problem("inputTable", "there is no data to train on", do),))

    @model_validator(mode="after")
    def _one_source_of_data(self) -> Self:
        if self.input_table is not None and self.local_data_dir is not None:
            do = "keep inputTable (a table) or localDataDir (a folder)"
            raise problem("inputTable and localDataDir are both given", do, key="localDataDir")
        return self

    @model_validator(mode="after")
    def _only_the_chosen_group(self) -> Self:
        other = "sfft" if self.method == "sft" else "sft"
        given = [f"{other}.{name}" for name in getattr(self, other).model_fields_set]
        if given:
            what = f"{', '.join(sorted(given))}: without effect in {self.pretrained_model_type}"
            raise problem(what, f"write {self.method}.… instead, or leave it out", key=min(given))
        return self
