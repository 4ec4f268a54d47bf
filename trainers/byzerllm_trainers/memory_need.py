"""The memory that a job's worker needs: its model's shapes, traced, laid out as its settings say."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.loading import in_four_bits, shapes_only

from .attention import attend_in_fp32
from .engine import fuse_adapter, precision
from .flops import ModelFlops, model_flops
from .memory import FP32, NF4, Layout, Parts, layout_of, on_host, phases
from .memory_trace import BatchShape, Moment, trace_optimizer, trace_step
from .model_options import apply_model_options
from .optimizers import build_optimizer

if TYPE_CHECKING:
    from torch import nn

    from .loop_settings import LoopSettings

OVERHEAD = {True: 1024 * 2**20, False: 512 * 2**20}
"""What a worker takes before it has a model, by whether it has a GPU.

Without one: Python, torch, transformers, peft and DeepSpeed in memory, 0.4 GiB measured in 2026-11
(`benchmarks/memory.py` has it in its figures), and Ray's part of a worker. On one, not measured here: CUDA's context
and kernels (about 0.5 GiB on an A100 and later), cuBLAS' workspaces and NCCL's buffers.
"""

EIGHT_BIT = ("adamw_bnb_8bit", "paged_adamw_8bit")
"""Optimizers that keep AdamW's two moments in a byte each (and a scale for each 256 of them)."""


@dataclass(frozen=True)
class Model:
    """A model's counts.

    Attributes:
        trained: Elements of weights that are trained; one that is shared counts once.
        frozen: Elements of the others, those in four bits included.
        packed: Elements of the weights in four bits (QLoRA).
        loaded: Bytes of all, as they are loaded.
        width: Bytes of a weight in what the run computes in.
        flops: What a token costs.
    """

    trained: int
    frozen: int
    packed: int
    loaded: int
    width: int
    flops: ModelFlops


@dataclass(frozen=True)
class Need:
    """What one worker needs.

    Attributes:
        phases: Bytes on its device in each phase of a run (see `memory.phases`).
        overhead: Bytes that its process or its GPU's context takes besides.
        host: Bytes that are offloaded to its node's main memory.
    """

    phases: dict[str, Parts]
    overhead: int
    host: int

    @property
    def peak(self) -> Parts:
        """The phase that decides."""
        return max(self.phases.values(), key=lambda parts: parts.total)

    @property
    def total(self) -> int:
        """The most bytes that the device holds."""
        return self.peak.total + self.overhead


class Estimator:
    """Answers what a run of a model needs, under settings that may be varied.

    Weights in four bits are traced as if they were whole, since bitsandbytes' kernels keep the same for backward; what
    they themselves take is computed (`memory.NF4`).

    Args:
        build: Builds the recipe's model; called on the meta device, where weights are shapes.
        world: Ranks.
        gpu: Whether the workers have GPUs.
        stored: Bytes of the weights' files; 0 for a model from scratch.
    """

    def __init__(self, build: Callable[[], nn.Module], *, world: int, gpu: bool, stored: int = 0) -> None:
        with shapes_only(), _quiet():
            self._model = build()
        self._world, self._gpu, self._stored = world, gpu, stored
        self._traces: dict[tuple[Any, ...], list[Moment]] = {}

    def model(self, settings: LoopSettings) -> Model:
        """Count the model."""
        parameters, packed = list(self._model.parameters()), in_four_bits(self._model)
        return Model(
            trained=sum(p.numel() for p in parameters if p.requires_grad),
            frozen=sum(p.numel() for p in parameters if not p.requires_grad),
            packed=sum(p.numel() for p in packed),
            loaded=self._loaded(parameters, packed),
            width=FP32 if self.kind(settings) == "fp32" else 2,
            flops=model_flops(self._model),
        )

    def kind(self, settings: LoopSettings) -> str:
        """What the workers compute in: theirs may be GPUs, where this process has none."""
        if self._gpu and settings.bf16 is None and not settings.fp16:
            return "bf16"
        return precision(settings)

    def need(self, settings: LoopSettings, shape: BatchShape) -> Need:
        """Return what a worker needs for micro-batches of this shape."""
        counts = self.model(settings)
        layout = layout_of(
            settings,
            trained=counts.trained,
            frozen=counts.frozen - counts.packed,
            packed=counts.packed,
            unpacked=max((p.numel() for p in in_four_bits(self._model)), default=0),
            width=counts.width,
            loaded=counts.loaded,
            world=self._world,
            gpu=self._gpu,
        )
        state, temporary = self._optimizer(settings, layout)
        held = phases(layout, self._moments(settings, shape), state=state, temporary=temporary)
        return Need(held, OVERHEAD[self._gpu], on_host(layout, state))

    def _loaded(self, parameters: Sequence[nn.Parameter], packed: Sequence[nn.Parameter]) -> int:
        """Bytes that the model takes when it has been read; one weight at a time is packed into four bits.

        On a CPU files in the wanted precision are mapped and are the weights; others stay mapped beside them until all
        are converted.
        """
        made: int = sum(p.numel() * p.element_size() for p in parameters)
        made += sum(round(p.numel() * (NF4 - p.element_size())) for p in packed)
        made += max((p.numel() * p.element_size() for p in packed), default=0)
        converted = not 0.75 < self._stored / made < 1.25
        return made + (self._stored if converted and not self._gpu else 0)

    def _moments(self, settings: LoopSettings, shape: BatchShape) -> list[Moment]:
        """Trace a micro-batch; the same one only once."""
        import torch

        kind = self.kind(settings)
        key = (kind, settings.gradient_checkpointing, settings.neftune, settings.zero_stage == 3, shape)
        if key not in self._traces:
            model = copy.deepcopy(self._model)
            model.to({"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[kind])
            with _quiet():
                apply_model_options(model, replace(settings, torch_compile=False))
            if kind == "bf16" and not self._gpu:
                attend_in_fp32(model)
            if settings.zero_stage < 3:
                fuse_adapter(model)
            self._traces[key] = trace_step(model.train(), shape)
        return self._traces[key]

    def _optimizer(self, settings: LoopSettings, layout: Layout) -> tuple[int, int]:
        """Return the bytes of the optimizer's state on a rank, and of what a step takes besides.

        It is the run's own, over what DeepSpeed gives it: each weight by itself, or under ZeRO one flat tensor of the
        rank's share for each group.
        """
        import torch

        if settings.optim in EIGHT_BIT:
            return 2 * layout.share, 0
        optimizer = build_optimizer(self._model, replace(settings, optim=_traceable(settings.optim)))
        for group in optimizer.param_groups:
            sizes = [p.shape for p in group["params"]]
            if layout.stage:
                sizes = [torch.Size([-(-sum(size.numel() for size in sizes) // layout.world)])]
            group["params"] = [torch.nn.Parameter(torch.empty(size, device="meta")) for size in sizes]
            if "foreach" in group:  # one tensor after another on a CPU, all at once on a GPU
                group["foreach"] = self._gpu
        state, temporary = trace_optimizer(optimizer)
        fused = settings.optim in (None, "adamw_torch_fused")
        return state, 0 if fused else temporary


def stored_bytes(model_dir: str) -> int:
    """Bytes of the files with a model folder's weights."""
    folder = Path(model_dir).expanduser()
    return sum(file.stat().st_size for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what libraries tell each other about coming versions out of a user's cell; in a job it goes to the log."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # kernels that it would rather have
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _traceable(optim: str | None) -> str:
    """Return the optimizer that has the same state and runs on the meta device."""
    return optim if optim in ("sgd", "adafactor") else "adamw_torch"
