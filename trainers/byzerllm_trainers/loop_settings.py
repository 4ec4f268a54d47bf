"""What the training loop is told: plain numbers, derived once from the cell's keys and its ``deepspeedConfig``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import read

from .train_parameters import OptimizationParameters, TrainParameters

DEFAULT_ZERO_STAGE = {"sft": 0, "sfft": 2}
"""LoRA's optimizer state is small, so partitioning it only adds communication; full training partitions it."""

_EXAMPLES = {
    "optimizer": '"optimizer": {"type": "AdamW", "params": {"lr": 2e-4}}',
    "zero_optimization": '"zero_optimization": {"stage": 2}',
    "bf16": '"bf16": {"enabled": true}',
    "fp16": '"fp16": {"enabled": false}',
}

KNOWN_KEYS = frozenset(
    [
        "activation_checkpointing",
        "aio",
        "amp",
        "autotuning",
        "bf16",
        "checkpoint",
        "comms_logger",
        "communication_data_type",
        "compression_training",
        "csv_monitor",
        "curriculum_learning",
        "data_efficiency",
        "data_types",
        "disable_allgather",
        "dump_state",
        "eigenvalue",
        "elasticity",
        "flops_profiler",
        "fp16",
        "fp32_allreduce",
        "gradient_accumulation_steps",
        "gradient_clipping",
        "gradient_predivide_factor",
        "hybrid_engine",
        "load_universal_checkpoint",
        "memory_breakdown",
        "optimizer",
        "prescale_gradients",
        "progressive_layer_drop",
        "scheduler",
        "seq_parallel_communication_data_type",
        "sparse_attention",
        "sparse_gradients",
        "steps_per_print",
        "tensorboard",
        "torch_autocast",
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "use_data_before_expert_parallelism",
        "wall_clock_breakdown",
        "wandb",
        "zero_allow_untested_optimizer",
        "zero_force_ds_cpu_optimizer",
        "zero_optimization",
    ]
)
"""DeepSpeed's top-level configuration keys (its configuration reference); it ignores any other in silence."""


@dataclass(frozen=True)
class LoopSettings:
    """One training run's numbers.

    Attributes:
        rows: Rows a device and micro-batch.
        accumulation: Micro-batches an optimizer step.
        learning_rate: Peak learning rate.
        betas: AdamW's momentum coefficients.
        schedule: ``cosine``, ``linear`` or ``constant``, after a linear warm-up.
        warmup_steps: Steps of warm-up, or None for ``warmup_ratio`` of all steps.
        clip: Largest gradient norm; 0 does not clip.
        bf16: True, False, or None: where the device has it fast.
        save_steps: Steps between checkpoints; None saves at the end only.
        deepspeed: DeepSpeed's configuration less what the loop decides itself.
    """

    rows: int
    accumulation: int
    learning_rate: float
    betas: tuple[float, float]
    epsilon: float
    weight_decay: float
    schedule: str
    warmup_steps: int | None
    warmup_ratio: float
    clip: float
    seed: int
    bf16: bool | None
    gradient_checkpointing: bool
    max_steps: int | None
    save_steps: int | None
    save_total_limit: int
    deepspeed: dict[str, Any]

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's ZeRO stage, 0 to 3."""
        return int(self.deepspeed["zero_optimization"]["stage"])

    def learning_rate_at(self, step: int, total: int) -> float:
        """Learning rate of the optimizer step with this index, counted from 0, of ``total``."""
        warmup = math.ceil(self.warmup_ratio * total) if self.warmup_steps is None else self.warmup_steps
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(1, total - warmup)
        match self.schedule:
            case "cosine":
                return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
            case "linear":
                return self.learning_rate * (1 - progress)
            case _:
                return self.learning_rate


def loop_settings(parameters: TrainParameters) -> LoopSettings:
    """Merge a cell's keys and its ``deepspeedConfig``; what neither says comes from defaults that train.

    Raises:
        ByzerError: an unknown or unusable ``deepspeedConfig`` key, or two places that disagree on one number.
    """
    theirs = _without_auto(parameters.deepspeed_config or {})
    _refuse_unknown(theirs)
    sections = {name: _section(theirs, name) for name in ("optimizer", "zero_optimization", "bf16", "fp16")}
    if sections["fp16"].get("enabled"):
        raise ByzerError(
            "fp16 is not offered: its gradients under- and overflow where bf16's do not",
            where='"fp16" in deepspeedConfig',
            do='write "bf16": {"enabled": true}, or leave both out for what the device has fast',
        )
    zero = {"stage": DEFAULT_ZERO_STAGE[parameters.method], **sections["zero_optimization"]}
    if zero["stage"] not in (0, 1, 2, 3):
        raise ByzerError(f"deepspeedConfig: there is no ZeRO stage {zero['stage']}", do='write "stage": 0, 1, 2 or 3')
    merged = _merged(
        parameters,
        {
            "per_device_train_batch_size": theirs.pop("train_micro_batch_size_per_gpu", None),
            "gradient_accumulation_steps": theirs.pop("gradient_accumulation_steps", None),
            "max_grad_norm": theirs.pop("gradient_clipping", None),
            "bf16": sections["bf16"].get("enabled"),
            **_adamw(sections["optimizer"]),
        },
    )
    return LoopSettings(
        rows=merged.per_device_train_batch_size,
        accumulation=merged.gradient_accumulation_steps,
        learning_rate=merged.learning_rate,
        betas=(merged.adam_beta1, merged.adam_beta2),
        epsilon=merged.adam_epsilon,
        weight_decay=merged.weight_decay,
        schedule=merged.lr_scheduler_type,
        warmup_steps=merged.warmup_steps,
        warmup_ratio=merged.warmup_ratio,
        clip=merged.max_grad_norm,
        seed=merged.seed,
        bf16=merged.bf16,
        gradient_checkpointing=merged.gradient_checkpointing,
        max_steps=merged.max_steps,
        save_steps=merged.save_steps,
        save_total_limit=merged.save_total_limit,
        deepspeed={**theirs, "zero_optimization": zero},
    )


def _merged(parameters: TrainParameters, theirs: dict[str, Any]) -> OptimizationParameters:
    """Return the cell's keys completed by what ``deepspeedConfig`` says for them (None: nothing)."""
    ours = parameters.optimization
    theirs = {key: value for key, value in theirs.items() if value is not None}
    for key in sorted(theirs.keys() & ours.model_fields_set):
        if theirs[key] != getattr(ours, key):
            raise ByzerError(
                f"{parameters.method}.{key} is {getattr(ours, key)}, but deepspeedConfig says {theirs[key]}",
                do="write it in one of the two places",
            )
    return ours.model_copy(update=read(type(ours), theirs).model_dump(exclude_unset=True))


def _without_auto(config: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says "auto", as configurations made for transformers do: our defaults hold there."""
    return {
        key: _without_auto(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if value != "auto"
    }


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Take a section out of ``config``; empty where it is not there."""
    section = config.pop(name, {})
    if not isinstance(section, dict):
        raise ByzerError(f'deepspeedConfig: "{name}" is {section!r}', do=f"write an object, e.g. {_EXAMPLES[name]}")
    return section


def _refuse_unknown(config: dict[str, Any]) -> None:
    import difflib

    for key in sorted(config.keys() - KNOWN_KEYS):
        near = difflib.get_close_matches(key, KNOWN_KEYS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else "DeepSpeed's configuration reference lists the keys"
        raise ByzerError(f'deepspeedConfig: DeepSpeed knows no key "{key}"', do=hint)
    if "scheduler" in config:
        raise ByzerError(
            'deepspeedConfig: "scheduler" is not used here',
            do="write lr_scheduler_type, warmup_steps or warmup_ratio (with the sft. or sfft. prefix)",
        )
    if "train_batch_size" in config:
        raise ByzerError(
            'deepspeedConfig: "train_batch_size" follows from the number of workers',
            do="write train_micro_batch_size_per_gpu and gradient_accumulation_steps",
        )


def _adamw(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Return our keys for AdamW's parameters in a DeepSpeed ``optimizer`` section."""
    kind = str(optimizer.get("type", "AdamW"))
    if kind.lower() not in ("adamw", "adam"):
        raise ByzerError(
            f'deepspeedConfig: optimizer "{kind}" is not offered', do='"type": "AdamW" is what is trained with'
        )
    params = optimizer.get("params", {})
    betas = params.get("betas", (None, None))
    if len(betas) != 2:
        raise ByzerError(f'deepspeedConfig: "betas" is {betas!r}', do='write two numbers, e.g. "betas": [0.9, 0.999]')
    return {
        "learning_rate": params.get("lr"),
        "adam_beta1": betas[0],
        "adam_beta2": betas[1],
        "adam_epsilon": params.get("eps"),
        "weight_decay": params.get("weight_decay"),
    }
