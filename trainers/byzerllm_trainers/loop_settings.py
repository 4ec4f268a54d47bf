"""What the training loop is told: plain numbers, derived once from the cell's keys and its ``deepspeedConfig``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .train_parameters import OptimizationParameters, TrainParameters

DEFAULT_ZERO_STAGE = {"sft": 0, "sfft": 2}
"""LoRA's optimizer state is small, so partitioning it only adds communication; full training partitions it."""

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
        ByzerError: an unknown ``deepspeedConfig`` key, or two places that disagree on one number.
    """
    ours = parameters.sft if parameters.method == "sft" else parameters.sfft
    theirs = dict(parameters.deepspeed_config or {})
    _refuse_unknown(theirs)
    optimizer = _adamw(theirs.pop("optimizer", None))
    merge = _Merge(ours, parameters.method)
    zero = {"stage": DEFAULT_ZERO_STAGE[parameters.method], **theirs.pop("zero_optimization", {})}
    bf16 = _switch(theirs.pop("bf16", None))
    if _switch(theirs.pop("fp16", None)):
        raise ByzerError(
            "fp16 is not offered: its gradients under- and overflow where bf16's do not",
            where='"fp16" in deepspeedConfig',
            do='write "bf16": {"enabled": true}, or leave both out for what the device has fast',
        )
    betas = optimizer.get("betas", (None, None))
    return LoopSettings(
        rows=merge("per_device_train_batch_size", theirs.pop("train_micro_batch_size_per_gpu", None)),
        accumulation=merge("gradient_accumulation_steps", theirs.pop("gradient_accumulation_steps", None)),
        learning_rate=merge("learning_rate", optimizer.get("lr")),
        betas=(merge("adam_beta1", betas[0]), merge("adam_beta2", betas[1])),
        epsilon=merge("adam_epsilon", optimizer.get("eps")),
        weight_decay=merge("weight_decay", optimizer.get("weight_decay")),
        clip=merge("max_grad_norm", theirs.pop("gradient_clipping", None)),
        bf16=merge("bf16", bf16),
        schedule=ours.lr_scheduler_type,
        warmup_steps=ours.warmup_steps,
        warmup_ratio=ours.warmup_ratio,
        seed=ours.seed,
        gradient_checkpointing=ours.gradient_checkpointing,
        max_steps=ours.max_steps,
        save_steps=ours.save_steps,
        save_total_limit=ours.save_total_limit,
        deepspeed={**theirs, "zero_optimization": zero},
    )


class _Merge:
    """One number that both the cell's key and ``deepspeedConfig`` may set."""

    def __init__(self, ours: OptimizationParameters, method: str) -> None:
        self._ours, self._method = ours, method

    def __call__(self, key: str, theirs: Any) -> Any:
        written = key in self._ours.model_fields_set
        value = getattr(self._ours, key)
        if theirs is None or (written and value == theirs):
            return value
        if written:
            raise ByzerError(
                f"{self._method}.{key} is {value}, but deepspeedConfig says {theirs}",
                do="write it in one of the two places",
            )
        return theirs


def _refuse_unknown(config: dict[str, Any]) -> None:
    import difflib

    for key in config.keys() - KNOWN_KEYS:
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


def _adamw(optimizer: dict[str, Any] | None) -> dict[str, Any]:
    """Return AdamW's parameters from a DeepSpeed ``optimizer`` section."""
    if optimizer is None:
        return {}
    kind = str(optimizer.get("type", "AdamW"))
    if kind.lower() not in ("adamw", "adam"):
        raise ByzerError(
            f'deepspeedConfig: optimizer "{kind}" is not offered', do='"type": "AdamW" is what is trained with'
        )
    return dict(optimizer.get("params", {}))


def _switch(section: dict[str, Any] | None) -> bool | None:
    """Read ``{"enabled": …}``; None where the section is missing or says "auto"."""
    enabled = None if section is None else section.get("enabled")
    return None if enabled in (None, "auto") else bool(enabled)
