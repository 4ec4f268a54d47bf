"""What the training loop is told: plain numbers, derived once from the cell's keys and its ``deepspeedConfig``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import ParameterError, Problem, read

from .deepspeed_config import WRITTEN_AS, read_deepspeed_config
from .deepspeed_sections import check_offload
from .optimization_parameters import FineTuningParameters, OptimizationParameters, SftParameters
from .schedules import learning_rate
from .train_parameters import TrainParameters

ADAPTER_STAGE, WHOLE_STAGE = 0, 2
"""An adapter's optimizer state is small, so partitioning it only adds communication; training all weights does it."""

NEEDS_GPU_STATE = ("adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit")
"""bitsandbytes' optimizers; two of them move their state between GPU and CPU by themselves."""

WHOLE_LEARNING_RATE = 2e-5
"""Fine-tuning all weights at the rate of an adapter forgets what the base knew."""

DEFAULT_SAVE_STEPS = 500
"""Between checkpoints, where nobody says how many; transformers has the same."""


@dataclass(frozen=True)
class Rhythm:
    """How often something is done: every ``steps`` steps, at the end of each epoch, or not at all."""

    strategy: Literal["no", "steps", "epoch"]
    steps: int = 1

    def due(self, step: int, epoch_steps: int) -> bool:
        """Whether it is done after this step, counted from 1, where an epoch has so many."""
        match self.strategy:
            case "steps":
                return step % self.steps == 0
            case "epoch":
                return step % epoch_steps == 0
            case "no":
                return False


@dataclass(frozen=True)
class LoopSettings:
    """One training run's numbers.

    Attributes:
        rows: Rows a device and micro-batch.
        accumulation: Micro-batches an optimizer step.
        group_by_length: Whether rows of similar length share a batch.
        stall_seconds: A worker that gets no further for this long is ended with its gang, which starts again.
        data_seed: Decides the data order; ``seed`` every other random choice.
        optim: The optimizer's name, or None: AdamW, fused.
        learning_rate: Peak learning rate.
        betas: AdamW's momentum coefficients.
        schedule: A name of `schedules.SCHEDULES`, after a linear warm-up; ``schedule_options`` are its own.
        warmup_steps: Steps of warm-up, or None for ``warmup_ratio`` of all steps.
        clip: Largest gradient norm; 0 does not clip.
        neftune: NEFTune's alpha; 0 adds no noise.
        bf16: True, False, or None: where the device has it fast.
        saving: When a checkpoint is written, besides the end.
        resume_from: A job's folder or a checkpoint to begin from, or None.
        evaluating: When the held-out data is evaluated; besides the end, unless it says no.
        eval_rows: Rows a device and batch of an evaluation.
        metric: The metric that tells better from worse.
        best_by: The same where the best checkpoint is the result, or None: the last is.
        patience: Evaluations without a better metric that end the run, or None.
        deepspeed: DeepSpeed's configuration less what the loop decides itself.
    """

    rows: int
    accumulation: int
    group_by_length: bool
    max_steps: int | None
    stall_seconds: float
    seed: int
    data_seed: int
    optim: str | None
    learning_rate: float
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    schedule: str
    schedule_options: dict[str, float]
    warmup_steps: int | None
    warmup_ratio: float
    clip: float
    neftune: float
    bf16: bool | None
    fp16: bool
    gradient_checkpointing: bool
    torch_compile: bool
    logging_steps: int
    report_to: str
    saving: Rhythm
    save_total_limit: int
    resume_from: str | None
    evaluating: Rhythm
    eval_rows: int
    metric: str
    best_by: str | None
    patience: int | None
    deepspeed: dict[str, Any]

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's ZeRO stage, 0 to 3."""
        return int(self.deepspeed["zero_optimization"]["stage"])

    def learning_rate_at(self, step: int, total: int) -> float:
        """Learning rate of the optimizer step with this index, counted from 0, of ``total``."""
        warmup = math.ceil(self.warmup_ratio * total) if self.warmup_steps is None else self.warmup_steps
        return learning_rate(
            self.schedule, self.schedule_options, step, warmup=warmup, total=total, peak=self.learning_rate
        )


def loop_settings(parameters: TrainParameters, *, checked: bool = False) -> LoopSettings:
    """Merge a cell's keys and its ``deepspeedConfig``; what neither says comes from defaults that train.

    Args:
        parameters: The keys.
        checked: Whether they are those of a job, which was checked: importing DeepSpeed's models takes seconds.

    Raises:
        ByzerError: an unknown or unusable ``deepspeedConfig`` key, or two places that disagree on one number.
    """
    config = read_deepspeed_config(
        parameters.deepspeed_config or {},
        default_stage=WHOLE_STAGE if parameters.optimization.whole else ADAPTER_STAGE,
        checked=checked,
    )
    zero = config.rest["zero_optimization"]
    keys = _merged(parameters, config.keys)
    if keys.fp16:
        _give_fp16_a_stage(parameters, zero)
    check_offload(zero)
    _refuse_combinations(keys, zero, parameters.method)
    evaluating = _evaluating(keys) if parameters.evaluates else Rhythm("no")
    return LoopSettings(
        rows=keys.per_device_train_batch_size,
        accumulation=keys.gradient_accumulation_steps,
        group_by_length=not isinstance(keys, FineTuningParameters) or keys.group_by_length,
        max_steps=keys.max_steps,
        stall_seconds=keys.ddp_timeout,
        seed=keys.seed,
        data_seed=keys.seed if keys.data_seed is None else keys.data_seed,
        optim=keys.optim,
        learning_rate=_peak(keys),
        betas=(keys.adam_beta1, keys.adam_beta2),
        epsilon=keys.adam_epsilon,
        weight_decay=keys.weight_decay,
        schedule=keys.lr_scheduler_type,
        schedule_options=keys.lr_scheduler_kwargs or {},
        warmup_steps=0 if _starts_at_its_peak(keys) else keys.warmup_steps,
        warmup_ratio=keys.warmup_ratio,
        clip=keys.max_grad_norm,
        neftune=keys.neftune_noise_alpha or 0.0,
        bf16=False if keys.fp16 else keys.bf16,
        fp16=keys.fp16,
        gradient_checkpointing=keys.gradient_checkpointing,
        torch_compile=keys.torch_compile,
        logging_steps=keys.logging_steps,
        report_to=keys.report_to,
        saving=_saving(keys, evaluating),
        save_total_limit=keys.save_total_limit,
        resume_from=keys.resume_from_checkpoint,
        evaluating=evaluating,
        eval_rows=keys.per_device_eval_batch_size or keys.per_device_train_batch_size,
        metric=_metric(keys),
        best_by=_metric(keys) if keys.load_best_model_at_end else None,
        patience=keys.early_stopping_patience,
        deepspeed=config.rest,
    )


def _merged(parameters: TrainParameters, theirs: dict[str, Any]) -> OptimizationParameters:
    """Return the cell's keys completed by what ``deepspeedConfig`` says for them."""
    ours = parameters.optimization
    for key in sorted(theirs.keys() & ours.model_fields_set):
        if theirs[key] != getattr(ours, key):
            raise ByzerError(
                f"{parameters.method}.{key} is {getattr(ours, key)}, but deepspeedConfig says {theirs[key]}",
                do="write it in one of the two places",
            )
    try:
        read_theirs = read(type(ours), theirs)
    except ParameterError as error:
        raise _in_their_words(error.problems[0]) from None
    return ours.model_copy(update=read_theirs.model_dump(exclude_unset=True))


def _in_their_words(problem: Problem) -> ByzerError:
    """Return what is wrong with a value of ``deepspeedConfig``, by the name that the user wrote."""
    name = WRITTEN_AS.get(problem.key, problem.key)
    return ByzerError(f"deepspeedConfig: {problem.what.replace(problem.key, name, 1)}", do=problem.do)


def _peak(keys: OptimizationParameters) -> float:
    """Return the highest learning rate; where nobody says one, all weights are fine-tuned at a lower one."""
    by_default = isinstance(keys, SftParameters) and keys.whole and "learning_rate" not in keys.model_fields_set
    return WHOLE_LEARNING_RATE if by_default else keys.learning_rate


def _refuse_combinations(keys: OptimizationParameters, zero: dict[str, Any], group: str) -> None:
    """Refuse what cannot be had together.

    Raises:
        ByzerError: two precisions; a compiled model or four-bit weights where stage 3 partitions them; an
            optimizer that computes on a GPU with its state on the CPU.
    """
    stage = zero["stage"]
    if keys.fp16 and keys.bf16:
        what = f"fp16 and bf16 are both asked for, as {group}. keys or in deepspeedConfig"
        raise ByzerError(what, do="keep bf16: it needs no loss scaling")
    if keys.torch_compile and stage == 3:
        raise ByzerError(
            f"{group}.torch_compile and ZeRO stage 3 do not go together: the weights are not there to compile",
            do='write "zero_optimization": {"stage": 2} in deepspeedConfig, or leave torch_compile out',
        )
    if isinstance(keys, FineTuningParameters) and keys.finetuning_type == "qlora" and stage == 3:
        raise ByzerError(
            f'{group}.finetuning_type="qlora" and ZeRO stage 3 do not go together: '
            "the base's four-bit weights stay whole",
            do='write "zero_optimization": {"stage": 2} in deepspeedConfig, or finetuning_type="lora"',
        )
    offloaded = (zero.get("offload_optimizer") or {}).get("device", "none") != "none"
    if offloaded and keys.optim in NEEDS_GPU_STATE:
        raise ByzerError(
            f"{group}.optim={keys.optim} computes on the GPU, and offload_optimizer keeps its state off it",
            do=f"leave {group}.optim out, or offload_optimizer",
        )


def _give_fp16_a_stage(parameters: TrainParameters, zero: dict[str, Any]) -> None:
    """Choose ZeRO stage 1 for fp16 in place of 0.

    Measured with DeepSpeed 0.19: at stage 0 SGD stands still and AdamW strays from fp32; from stage 1 on both
    follow it to four digits.

    Raises:
        ByzerError: the cell asks for stage 0.
    """
    asked = (parameters.deepspeed_config or {}).get("zero_optimization", {}).get("stage")
    if asked == 0:
        raise ByzerError("fp16 does not train right at ZeRO stage 0", do='write "stage": 1 or more, or bf16')
    zero["stage"] = max(1, zero["stage"])


def _starts_at_its_peak(keys: OptimizationParameters) -> bool:
    """Whether the schedule has no warm-up, as transformers' ``constant``, and the cell asks for none."""
    return keys.lr_scheduler_type == "constant" and not keys.model_fields_set & {"warmup_steps", "warmup_ratio"}


def _evaluating(keys: OptimizationParameters) -> Rhythm:
    strategy = keys.eval_strategy or ("steps" if keys.eval_steps else "epoch")
    return Rhythm(strategy, keys.eval_steps or keys.logging_steps)


def _saving(keys: OptimizationParameters, evaluating: Rhythm) -> Rhythm:
    """Return when checkpoints are written; the best can only be one that is there, so each evaluation has one."""
    if keys.save_strategy is None and keys.save_steps is None and keys.load_best_model_at_end:
        return evaluating
    return Rhythm(keys.save_strategy or "steps", keys.save_steps or DEFAULT_SAVE_STEPS)


def _metric(keys: OptimizationParameters) -> str:
    return "eval_" + keys.metric_for_best_model.removeprefix("eval_")
