"""How a base model becomes one that is fine-tuned: with an adapter (LoRA, DoRA, QLoRA's on four bits), or whole."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from byzerllm_adapters import registry
from byzerllm_adapters.errors import ByzerError

from .engine import precision
from .train_parameters import method_of

if TYPE_CHECKING:
    from torch import nn

    from .job_request import JobRequest
    from .optimization_parameters import FineTuningParameters

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""A frozen base's weights are in what the run computes in; those that are trained begin in fp32, the masters'."""

ALL_LINEAR = "all-linear"
"""peft's word for every linear layer but the head."""


def load_base(request: JobRequest) -> Any:
    """Load the model that a job fine-tunes, in the precision that its weights have while it is trained."""
    train = request.train
    load_model = registry.find(train.family).load_model
    if train.fine_tuning.whole:
        return load_model(train.local_model_dir, dtype="float32").requires_grad_(True)
    base = load_model(
        train.local_model_dir,
        dtype=DTYPES[precision(request.loop)],
        quantization="nf4" if train.fine_tuning.finetuning_type == "qlora" else None,
    )
    _keep_unpacked(base)
    return base


def add_adapter(base: Any, parameters: FineTuningParameters) -> Any:
    """Freeze ``base`` and put a trainable adapter on it, as a peft model.

    Raises:
        ByzerError: ``target_modules`` or ``modules_to_save`` names what the model does not have.
    """
    from peft import LoraConfig, get_peft_model

    check_modules(base, parameters)
    config = LoraConfig(
        r=parameters.lora_rank,
        lora_alpha=parameters.lora_alpha,
        lora_dropout=parameters.lora_dropout,
        target_modules=ALL_LINEAR if parameters.target_modules == [ALL_LINEAR] else list(parameters.target_modules),
        modules_to_save=list(parameters.modules_to_save) or None,
        use_dora=parameters.finetuning_type == "dora",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)


def check_modules(model: nn.Module, parameters: FineTuningParameters) -> None:
    """Check that a model has the layers that an adapter is asked for; its weights may be on the meta device.

    A name fits as peft fits it: the whole name of a layer, or the end of it after a dot.

    Raises:
        ByzerError: it lacks one, with the nearest names that it has.
    """
    method = method_of(parameters)
    if parameters.target_modules != [ALL_LINEAR]:
        _check_names(f"{method}.target_modules", parameters.target_modules, list(_adaptable(model)))
    with_weights = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
    _check_names(f"{method}.modules_to_save", parameters.modules_to_save, with_weights)


def trained_in(request: JobRequest) -> str:
    """Return the precision that a fine-tuned model is trained in, for whoever merges its adapter."""
    computed = precision(request.loop)
    return f"nf4, computed in {computed}" if request.train.fine_tuning.finetuning_type == "qlora" else computed


def _check_names(key: str, asked: Sequence[str], there: Sequence[str]) -> None:
    known = sorted({name.rpartition(".")[2] for name in there if not name.rpartition(".")[2].isdigit()})
    for name in asked:
        if any(full == name or full.endswith(f".{name}") for full in there):
            continue
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
        raise ByzerError(
            f'{key}: the model has no layer "{name}"' + (" that LoRA changes" if "target_modules" in key else ""),
            where=f"it has: {', '.join(known)}",
            do=f"did you mean {' or '.join(near)}?" if near else f"name some of those in {key}",
        )


def _adaptable(model: nn.Module) -> Iterator[str]:
    """Yield the names of the layers that peft puts LoRA matrices on."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv1d | nn.Conv2d | nn.Conv3d | Conv1D):
            yield name


def _keep_unpacked(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking four-bit weights when they compute without gradients on a CPU.

    It does so in the first evaluation, in place, and the backward pass of the next step cannot read them.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False
