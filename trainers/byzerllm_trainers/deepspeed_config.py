"""A cell's ``deepspeedConfig``: DeepSpeed's own JSON, its keys checked, what the loop decides itself taken out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .deepspeed_sections import check_sections, unknown_key

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

_DATA = "leave it out: the data order follows from the seed; DeepSpeed does not load the data"
_ONE_PRECISION = "write bf16 or fp16"
REFUSED = {
    "amp": _ONE_PRECISION,
    "torch_autocast": _ONE_PRECISION,
    "autotuning": "leave it out: it is a way to start DeepSpeed's own launcher",
    "curriculum_learning": _DATA,
    "data_efficiency": _DATA,
    "elasticity": "leave it out: num_gpus (setup) says how many workers there are",
    "hybrid_engine": "leave it out: it belongs to reinforcement learning",
    "load_universal_checkpoint": "write resume_from_checkpoint (with the method's prefix, e.g. sft.)",
    "progressive_layer_drop": "leave it out: the model has to take part in it",
    "scheduler": "write lr_scheduler_type, warmup_steps or warmup_ratio (with the method's prefix, e.g. sft.)",
}
"""Sections that would be without effect, or that the loop decides: what to write instead."""

WRITTEN_AS = {
    "per_device_train_batch_size": "train_micro_batch_size_per_gpu",
    "max_grad_norm": "gradient_clipping",
    "bf16": "bf16.enabled",
    "fp16": "fp16.enabled",
    "learning_rate": "optimizer.params.lr",
    "adam_beta1": "optimizer.params.betas",
    "adam_beta2": "optimizer.params.betas",
    "adam_epsilon": "optimizer.params.eps",
    "weight_decay": "optimizer.params.weight_decay",
}
"""DeepSpeed's names of our keys, where they differ."""

_ADAM_PARAMS = ("lr", "betas", "eps", "weight_decay", "torch_adam", "adam_w_mode")
"""Parameters of DeepSpeed's AdamW; the last two choose between implementations of the same."""


@dataclass(frozen=True)
class DeepSpeedConfig:
    """What a ``deepspeedConfig`` says.

    Attributes:
        keys: Our keys, as far as it speaks of them.
        rest: What DeepSpeed itself is told; ``zero_optimization`` has a stage.
    """

    keys: dict[str, Any]
    rest: dict[str, Any]


def read_deepspeed_config(given: dict[str, Any], *, default_stage: int, checked: bool = False) -> DeepSpeedConfig:
    """Split a ``deepspeedConfig``; what says "auto" is left to our defaults.

    Args:
        given: It.
        default_stage: ZeRO's, where it names none.
        checked: Whether DeepSpeed's own models have read it before.

    Raises:
        ByzerError: an unknown or unusable key.
    """
    rest = _without_auto(given)
    _refuse_unknown(rest)
    sections = {name: _section(rest, name) for name in ("optimizer", "zero_optimization", "bf16", "fp16")}
    zero = {"stage": default_stage, **sections["zero_optimization"]}
    if zero["stage"] not in (0, 1, 2, 3):
        raise ByzerError(
            f"deepspeedConfig: there is no ZeRO stage {json.dumps(zero['stage'])}",
            do='write "stage": 0, 1, 2 or 3, a number without quotes',
        )
    if not checked:
        check_sections(rest | sections)
    fp16, bf16 = (sections[name].pop("enabled", None) for name in ("fp16", "bf16"))
    said = {
        "per_device_train_batch_size": rest.pop("train_micro_batch_size_per_gpu", None),
        "gradient_accumulation_steps": rest.pop("gradient_accumulation_steps", None),
        "max_grad_norm": rest.pop("gradient_clipping", None),
        "bf16": bf16,
        "fp16": fp16,
        **_adamw(sections["optimizer"]),
    }
    rest.pop("train_batch_size", None)  # see `check_batch_size`
    rest |= {name: sections[name] for name, on in (("fp16", fp16), ("bf16", bf16)) if on and sections[name]}
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
        raise unknown_key(key, KNOWN_KEYS)
    for key in sorted(config.keys() & REFUSED.keys()):
        if not _switched_off(config[key]):
            raise ByzerError(f'deepspeedConfig: "{key}" is not used here', do=REFUSED[key])
    if config.get("zero_force_ds_cpu_optimizer"):
        raise ByzerError(
            'deepspeedConfig: "zero_force_ds_cpu_optimizer" is not used here',
            do="leave it out: torch's optimizers compute on CPUs too, and resume bit for bit",
        )


def _switched_off(section: Any) -> bool:
    return section is False or (isinstance(section, dict) and section.get("enabled") is False)


def check_batch_size(config: Mapping[str, Any], rows: int, accumulation: int, workers: int) -> None:
    """Check that a ``train_batch_size`` is what the other numbers make.

    Args:
        config: The ``deepspeedConfig`` as given.
        rows: Rows a worker and micro-batch.
        accumulation: Micro-batches an optimizer step.
        workers: Ranks.

    Raises:
        ByzerError: it is not.
    """
    given = config.get("train_batch_size", "auto")
    if given not in ("auto", rows * accumulation * workers):
        raise ByzerError(
            f"deepspeedConfig: train_batch_size is {given}, but {rows} rows × {accumulation} accumulation steps "
            f"× {workers} workers are {rows * accumulation * workers}",
            do="leave it out, or change train_micro_batch_size_per_gpu or gradient_accumulation_steps",
        )


def _adamw(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Return our keys for AdamW's parameters in a DeepSpeed ``optimizer`` section."""
    kind = str(optimizer.get("type", "AdamW"))
    if kind.lower() not in ("adamw", "adam"):
        near = difflib.get_close_matches(kind.lower(), ("adamw", "adam"), n=1, cutoff=0.8)
        raise ByzerError(
            f'deepspeedConfig: optimizer "{kind}" is not offered: it may be AdamW or Adam',
            do=f'did you mean "{near[0].replace("a", "A", 1).replace("w", "W")}"?'
            if near
            else "leave it out and write optim (with the method's prefix, e.g. sft.), which knows others",
        )
    _refuse_others(optimizer, "optimizer", ("type", "params"))
    params = optimizer.get("params", {})
    _refuse_others(params, "optimizer.params", _ADAM_PARAMS)
    if params.get("adam_w_mode") is False:
        raise ByzerError(
            "deepspeedConfig: adam_w_mode=false is not offered", do="leave it out: weight decay is AdamW's"
        )
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


def _refuse_others(section: Any, name: str, known: Sequence[str]) -> None:
    """Refuse what is not an object of ``known`` keys."""
    if not isinstance(section, dict):
        raise ByzerError(
            f'deepspeedConfig: "{name}" is {section!r}', do=f"write an object, e.g. {_EXAMPLES['optimizer']}"
        )
    for key in sorted(section.keys() - set(known)):
        raise unknown_key(f"{name}.{key}", known)
