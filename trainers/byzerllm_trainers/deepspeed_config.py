"""A cell's ``deepspeedConfig``: DeepSpeed's own JSON, its keys checked, what the loop decides itself taken out."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from byzerllm_adapters.errors import ByzerError

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
class DeepSpeedConfig:
    """What a ``deepspeedConfig`` says.

    Attributes:
        keys: Our keys, as far as it speaks of them.
        rest: What DeepSpeed itself is told; ``zero_optimization`` has a stage.
    """

    keys: dict[str, Any]
    rest: dict[str, Any]


def read_deepspeed_config(given: dict[str, Any], *, default_stage: int) -> DeepSpeedConfig:
    """Split a ``deepspeedConfig``; what says "auto" is left to our defaults.

    Raises:
        ByzerError: an unknown or unusable key.
    """
    rest = _without_auto(given)
    _refuse_unknown(rest)
    sections = {name: _section(rest, name) for name in ("optimizer", "zero_optimization", "bf16", "fp16")}
    zero = {"stage": default_stage, **sections["zero_optimization"]}
    if zero["stage"] not in (0, 1, 2, 3):
        raise ByzerError(f"deepspeedConfig: there is no ZeRO stage {zero['stage']}", do='write "stage": 0, 1, 2 or 3')
    fp16 = sections["fp16"].pop("enabled", None)
    said = {
        "per_device_train_batch_size": rest.pop("train_micro_batch_size_per_gpu", None),
        "gradient_accumulation_steps": rest.pop("gradient_accumulation_steps", None),
        "max_grad_norm": rest.pop("gradient_clipping", None),
        "bf16": sections["bf16"].get("enabled"),
        "fp16": fp16,
        **_adamw(sections["optimizer"]),
    }
    if fp16 and sections["fp16"]:  # loss scaling
        rest["fp16"] = sections["fp16"]
    return DeepSpeedConfig(
        keys={key: value for key, value in said.items() if value is not None},
        rest={**rest, "zero_optimization": zero},
    )


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
    for key in sorted(config.keys() - KNOWN_KEYS):
        near = difflib.get_close_matches(key, KNOWN_KEYS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else "DeepSpeed's configuration reference lists the keys"
        raise ByzerError(f'deepspeedConfig: DeepSpeed knows no key "{key}"', do=hint)
    if "scheduler" in config:
        raise ByzerError(
            'deepspeedConfig: "scheduler" is not used here',
            do="write lr_scheduler_type, warmup_steps or warmup_ratio (with the method's prefix, e.g. sft.)",
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
            f'deepspeedConfig: optimizer "{kind}" is not offered',
            do="leave it out and write optim (with the method's prefix, e.g. sft.)",
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
