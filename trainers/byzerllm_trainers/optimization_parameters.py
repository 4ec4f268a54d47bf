"""The keys of each way of training (`sft.`, `sfft.`, `dpo.`): the numbers of a run, under transformers' names.

The defaults are meant to train: the original's learning rate of 1e-8 and warmup of 3000 steps did not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from byzerllm_adapters.parameters import JsonObject, Parameters, Text, problem

from .argument_types import (
    EPOCHS,
    OPTIMIZER_NOTES,
    ROWS,
    STEPS,
    TOKENS,
    AdamBeta2,
    AdapterType,
    FinetuningType,
    LearningRate,
    LoraDropout,
    ModuleNames,
    Optimizer,
    ResizeVocab,
    Schedule,
    WeightDecay,
    no_limit,
    read_prompts,
    with_a_reference,
)
from .refused_arguments import REFUSED, REFUSED_FOR_DPO, REFUSED_FOR_SFFT, REFUSED_FOR_SFT
from .schedules import SCHEDULES, unknown_options


class OptimizationParameters(Parameters):
    """What every way of training takes; a step is one update of the weights."""

    refused: ClassVar[Mapping[str, str]] = REFUSED
    title: ClassVar[str]
    """What this way of training does, for help."""
    hint: ClassVar[str]
    """The same in two or three words, which go on from `to`."""
    one_node: ClassVar[bool] = False
    """Whether all workers are on one node."""

    # -- how the weights change --
    learning_rate: LearningRate = 2e-4
    weight_decay: WeightDecay = 0.0
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay rate of the gradients' average.")
    adam_beta2: AdamBeta2 = 0.999
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW's term against division by zero.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients longer than this are scaled down; 0: never.")
    optim: Optimizer | None = Field(
        None,
        description="The optimizer; none: AdamW, fused. 8-bit ones need a GPU.",
        json_schema_extra={"note": OPTIMIZER_NOTES},
    )
    lr_scheduler_type: Schedule = Field(
        "cosine", description="How the learning rate falls after the warmup; constant: without one by default."
    )
    lr_scheduler_kwargs: JsonObject | None = Field(
        None, description="The schedule's own options: num_cycles, power, lr_end, timescale."
    )
    warmup_steps: int | None = Field(
        None, ge=0, description="Length of the warmup; none: from warmup_ratio.", json_schema_extra=STEPS
    )
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="Length of the warmup as a share of all steps, if warmup_steps is none."
    )
    neftune_noise_alpha: float | None = Field(
        None, gt=0, description="Noise on the embeddings while training, against overfitting; 5 is usual."
    )

    # -- how much is computed at a time, and how long --
    max_steps: Annotated[Annotated[int, Field(gt=0)] | None, BeforeValidator(no_limit)] = Field(
        None, description="End after so many steps; none or -1: after all epochs.", json_schema_extra=STEPS
    )
    per_device_train_batch_size: int = Field(
        8, gt=0, description="Rows that one worker computes at a time.", json_schema_extra=ROWS
    )
    gradient_accumulation_steps: int = Field(
        1, gt=0, description="Batches whose gradients make one step.", json_schema_extra={"unit": "batches"}
    )
    seed: int = Field(42, ge=0, description="Decides the order of the data and every other random choice.")
    data_seed: int | None = Field(None, ge=0, description="Decides the order of the data; none: seed does.")
    bf16: bool | None = Field(None, description="Compute in bfloat16; none: where the device has it fast.")
    fp16: bool = Field(False, description="Compute in float16, with loss scaling; needs a GPU. bf16 is safer.")
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again instead of keeping them: less memory, more time."
    )
    torch_compile: bool = Field(
        False, description="Compile the model first: minutes once, then faster. Needs a C++ compiler."
    )

    # -- the data --
    on_bad_row: Literal["error", "drop"] = Field(
        "error", description="What a row that does not fit does: ends the job, or is left out and counted."
    )

    # -- what is written meanwhile --
    logging_steps: int = Field(
        10,
        gt=0,
        description="Print and send to TensorBoard every so many steps; metrics.jsonl has every step.",
        json_schema_extra=STEPS,
    )
    report_to: Literal["tensorboard", "wandb", "mlflow", "none"] = Field(
        "tensorboard", description="Who gets the numbers, besides metrics.jsonl and the log; if it is installed."
    )
    save_strategy: Literal["no", "steps", "epoch"] | None = Field(
        None,
        description="Checkpoints besides the end: no, steps, epoch; none: steps, or as evaluated for the best.",
    )
    save_steps: int | None = Field(
        None,
        gt=0,
        description="Write a checkpoint every so many steps, and at the end; none: 500.",
        json_schema_extra=STEPS,
    )
    save_total_limit: int = Field(
        2,
        gt=0,
        description="Checkpoints that are kept: the newest. One of two may turn out to be damaged.",
        json_schema_extra={"unit": "checkpoints"},
    )
    ddp_timeout: int = Field(
        1800,
        gt=0,
        description="A worker that gets no further for so long is ended; the job goes on from a checkpoint.",
        json_schema_extra={"unit": "seconds"},
    )
    resume_from_checkpoint: Text | None = Field(
        None, description="Go on from another job: its folder, or one of its checkpoints."
    )

    # -- evaluation --
    eval_ratio: float = Field(
        0.0, ge=0, lt=1, description="Share of the rows (documents) that is held out to evaluate on."
    )
    eval_strategy: Literal["no", "steps", "epoch"] | None = Field(
        None,
        validation_alias=AliasChoices("eval_strategy", "evaluation_strategy"),
        description="When eval_loss is taken, besides the end. None: steps if eval_steps is given, else epoch.",
    )
    eval_steps: int | None = Field(
        None,
        gt=0,
        description="Evaluate every so many steps; logging_steps if the strategy is steps.",
        json_schema_extra=STEPS,
    )
    per_device_eval_batch_size: int | None = Field(
        None,
        gt=0,
        description="Rows that one worker evaluates at a time; none: as many as it trains on.",
        json_schema_extra=ROWS,
    )
    load_best_model_at_end: bool = Field(
        False, description="The result is the best checkpoint, not the last; each checkpoint is evaluated."
    )
    metric_for_best_model: Literal["eval_loss", "eval_accuracy", "loss", "accuracy"] = Field(
        "eval_loss", description="What the best checkpoint is best at; accuracy: of the next token (dpo: of pairs)."
    )

    early_stopping_patience: int | None = Field(
        None,
        gt=0,
        description="End when so many evaluations in a row are not better; none: train to the last step.",
        json_schema_extra={"unit": "evaluations"},
    )

    # -- samples --
    sample_prompts: Annotated[list[str], BeforeValidator(read_prompts)] = Field(
        default_factory=list, description="Prompts that the model answers while it trains, greedily: a JSON list."
    )
    sample_steps: int = Field(
        100, gt=0, description="Answer the sample_prompts every so many steps, and at the end.", json_schema_extra=STEPS
    )
    sample_max_tokens: int = Field(
        64, gt=0, description="The most tokens of an answer to one of the sample_prompts.", json_schema_extra=TOKENS
    )

    epochs_key: ClassVar[str] = "num_train_epochs"
    """The key that says how many epochs there are."""

    @property
    def whole(self) -> bool:
        """Whether every weight is trained, and not an adapter."""
        return True

    @model_validator(mode="after")
    def _one_rhythm(self) -> Self:
        """Refuse a number of steps beside a strategy that does not count steps."""
        for what in ("save", "eval"):
            strategy, steps = getattr(self, f"{what}_strategy"), getattr(self, f"{what}_steps")
            if steps is not None and strategy in ("no", "epoch"):
                sentence = f'{what}_steps is without effect with {what}_strategy="{strategy}"'
                raise problem(sentence, f'leave it out, or write {what}_strategy="steps"', key=f"{what}_steps")
        return self

    @model_validator(mode="after")
    def _options_of_the_schedule(self) -> Self:
        unknown = unknown_options(self.lr_scheduler_type, self.lr_scheduler_kwargs or {})
        if unknown:
            known = ", ".join(SCHEDULES[self.lr_scheduler_type].options) or "none"
            what = f"lr_scheduler_kwargs: {self.lr_scheduler_type} has no option {', '.join(unknown)}"
            raise problem(what, f"it has: {known}; each is a number", key="lr_scheduler_kwargs")
        return self


class FineTuningParameters(OptimizationParameters):
    """What every way of training takes that begins with a finished model: how, and the numbers of the adapter."""

    one_node: ClassVar[bool] = True

    num_train_epochs: float = Field(1.0, gt=0, description="Times that each row is used.", json_schema_extra=EPOCHS)
    max_seq_length: int = Field(
        1024, gt=1, description="Longer conversations are cut to this length.", json_schema_extra=TOKENS
    )
    user_role: Text | None = Field(
        None, description="What our own chat template calls who asks; none: User. Served the same."
    )
    assistant_role: Text | None = Field(
        None, description="What our own chat template calls who answers; none: Assistant. Served the same."
    )
    group_by_length: bool = Field(
        True, description="Rows of similar length share a batch, so that little is padded; false: plain shuffle."
    )
    finetuning_type: FinetuningType = Field(
        "lora", description="An adapter: lora, dora, qlora (on a base in 4 bits, NF4); or every weight: full."
    )
    lora_rank: int = Field(
        16,
        gt=0,
        validation_alias=AliasChoices("lora_rank", "r", "lora_r"),
        description="Rank of the LoRA matrices: more learn more and take more memory.",
    )
    lora_alpha: float = Field(
        32.0,
        gt=0,
        validation_alias=AliasChoices("lora_alpha", "alpha"),
        description="The update is scaled by lora_alpha / lora_rank.",
    )
    lora_dropout: LoraDropout = 0.05
    target_modules: Annotated[ModuleNames, Field(min_length=1)] = Field(
        ["all-linear"], description="Layers that get LoRA matrices, e.g. q_proj,v_proj; all-linear: all but the head."
    )
    modules_to_save: ModuleNames = Field(
        [], description="Modules that are trained whole besides, e.g. lm_head; the adapter's folder holds them."
    )

    @property
    def whole(self) -> bool:
        """Whether every weight is trained, and not an adapter."""
        return self.finetuning_type == "full"


ADAPTER_KEYS = ("lora_rank", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save")
"""What only an adapter has."""


class SftParameters(FineTuningParameters):
    """What fine-tuning (`sft/FAMILY`) takes."""

    refused: ClassVar[Mapping[str, str]] = REFUSED_FOR_SFT
    title: ClassVar[str] = "fine-tune"
    hint: ClassVar[str] = "fine-tune"

    learning_rate: LearningRate = Field(2e-4, json_schema_extra={"default": "2e-4; full: 2e-5"})
    packing: bool = Field(
        False, description="Fill rows of max_seq_length with several conversations; they do not see each other."
    )
    resize_vocab: ResizeVocab = False

    @model_validator(mode="after")
    def _adapter_or_whole(self) -> Self:
        given = [name for name in ADAPTER_KEYS if name in self.model_fields_set]
        if self.whole and given:
            sentence = f'{given[0]} is without effect with finetuning_type="full"'
            raise problem(sentence, 'leave it out, or write finetuning_type="lora"', key=given[0])
        if self.resize_vocab and not self.whole:
            sentence = f'resize_vocab does not go with finetuning_type="{self.finetuning_type}"'
            do = 'write finetuning_type="full": an adapter fits the base as it is in its folder'
            raise problem(sentence, do, key="resize_vocab")
        return self


class SfftParameters(OptimizationParameters):
    """What pretraining (`sfft/FAMILY`) takes: every weight is trained."""

    refused: ClassVar[Mapping[str, str]] = REFUSED_FOR_SFFT
    title: ClassVar[str] = "train every weight"
    hint: ClassVar[str] = "pretrain"
    epochs_key: ClassVar[str] = "epoches"

    learning_rate: LearningRate = 3e-4
    weight_decay: WeightDecay = 0.1
    adam_beta2: AdamBeta2 = 0.95
    epoches: float = Field(
        1.0,
        gt=0,
        validation_alias=AliasChoices("epoches", "num_train_epochs"),
        description="Times that each token is used; num_train_epochs is the same.",
        json_schema_extra=EPOCHS,
    )
    steps_per_epoch: int | None = Field(
        None, gt=0, description="End an epoch after so many steps; none: all tokens.", json_schema_extra=STEPS
    )
    max_length: int = Field(
        1024,
        gt=1,
        description="Length of the rows that the tokens are packed into.",
        json_schema_extra=TOKENS,
    )
    from_scratch: bool = Field(
        False,
        validation_alias=AliasChoices("from_scratch", "train_from_scratch"),
        description="Begin with new weights, of the model that config.json describes.",
    )
    tokenizer_path: Text | None = Field(
        None, description="A tokenizer's folder, tokenizer.json or tokenizer.model; none: the model's own."
    )
    resize_vocab: ResizeVocab = False
    setup_nccl_socket_ifname_by_ip: bool = Field(
        False, description="Tell NCCL the network interface of the node's address; for mixed machines."
    )


class DpoParameters(FineTuningParameters):
    """What preference tuning (`dpo/FAMILY`) takes: a row is a pair of answers, the better one and the worse."""

    refused: ClassVar[Mapping[str, str]] = REFUSED_FOR_DPO
    title: ClassVar[str] = "prefer one answer to another (DPO), with an adapter"
    hint: ClassVar[str] = "learn preferences"

    learning_rate: LearningRate = 5e-6
    finetuning_type: Annotated[AdapterType, BeforeValidator(with_a_reference)] = Field(
        "lora", description="The adapter: lora, dora, or qlora (on a base in 4 bits, NF4); the base is the reference."
    )
    lora_dropout: LoraDropout = 0.0
    beta: float = Field(
        0.1, gt=0, description="How closely the model stays to its base: higher is closer. For ipo its tau."
    )
    loss_type: Literal["sigmoid", "hinge", "ipo"] = Field(
        "sigmoid", description="What a pair costs: the DPO paper's sigmoid, SLiC's hinge, or IPO's square."
    )
