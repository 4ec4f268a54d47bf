"""A DeepSpeed engine around a model: process group, optimizer, precision, clipping."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from byzerllm_adapters.errors import ByzerError

from .attention import attend_in_fp32
from .device import check_device
from .loop_settings import LoopSettings
from .optimizers import build_optimizer

if TYPE_CHECKING:
    from torch import nn

    from .job_folder import JobFolder
    from .processes import Place


@dataclass(frozen=True)
class Rank:
    """A process's place in the gang: ``index`` of ``world``."""

    index: int
    world: int


def join_group(
    rank: Rank, places: Sequence[Place], *, gpu: bool, by_own_address: bool = False, patience: float = 1800.0
) -> None:
    """Join the gang's process group: NCCL on GPUs, gloo without. It meets on rank 0's node.

    Args:
        rank: This process.
        places: Where each rank is.
        gpu: Whether each rank has a GPU, which Ray shows it alone, as device 0; CPU ranks of a node count on.
        by_own_address: Talk over the network interface that holds this node's IP; else the library chooses.
        patience: Seconds after which a collective whose other end does not answer is an error.
    """
    first, own = places[0], places[rank.index]
    if by_own_address or first.address.startswith("127."):  # one machine by itself: nothing listens beyond it
        os.environ["NCCL_SOCKET_IFNAME"] = os.environ["GLOO_SOCKET_IFNAME"] = interface_of(own.address)
    local_index, local_world = local_place(rank.index, places, gpu=gpu)
    os.environ.update(
        RANK=str(rank.index),
        WORLD_SIZE=str(rank.world),
        LOCAL_RANK=str(local_index),
        LOCAL_SIZE=str(local_world),
        MASTER_ADDR=first.address,
        MASTER_PORT=str(first.port),
    )
    import torch

    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed = import_deepspeed()
    torch.distributed.init_process_group(
        backend,
        store=_meeting_point(rank, first.address, first.port),
        rank=rank.index,
        world_size=rank.world,
        timeout=timedelta(seconds=patience),
    )
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)  # takes the group as it is


def local_place(index: int, places: Sequence[Place], *, gpu: bool) -> tuple[int, int]:
    """Return a rank's number among the ranks of its node that see the same devices, and how many those are."""
    if gpu:
        return 0, 1
    here = [rank for rank, place in enumerate(places) if place.node == places[index].node]
    return here.index(index), len(here)


def _meeting_point(rank: Rank, address: str, port: int) -> Any:
    """Return the store in which the ranks find each other.

    Rank 0 serves it on its node's address alone: by itself torch would on every interface, and it asks nobody
    for a token.
    """
    from torch.distributed import TCPStore

    listener: int | None = None
    if rank.index == 0:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, port), family=family).detach()
    return TCPStore(address, port, rank.world, is_master=rank.index == 0, master_listen_fd=listener)


def import_deepspeed() -> Any:
    """Import DeepSpeed for the device that is there, and what the code of every model imports."""
    import torch

    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import transformers.generation.utils  # noqa: F401

    _leave_muon_uncompiled()
    if on_cpu:
        _use_no_compiled_ops()
    return deepspeed


def interface_of(address: str) -> str:
    """Return the name of the network interface that holds an IP address: nodes may name theirs differently.

    Raises:
        ByzerError: none does.
    """
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    raise ByzerError(f"no network interface of this node has the address {address}")


def _use_no_compiled_ops() -> None:
    """Keep DeepSpeed from compiling its shared-memory collective at first use.

    That takes 35 s and a C++ compiler, which a laptop may not have; gloo needs neither and is as fast here.
    """
    import deepspeed.ops
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    deepspeed.ops.__compatible_ops__ = dict.fromkeys([*ALL_OPS, "deepspeed_not_implemented"], False)


def _leave_muon_uncompiled() -> None:
    """Import DeepSpeed's Muon, which no job uses, without torch's compiler, whose import takes over a second.

    Its module is imported with every engine, and decorates its functions with `torch.compile` (docs/log.md).
    """
    from deepspeed.runtime import compiler

    given = compiler.compile
    compiler.compile = lambda: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
    finally:
        compiler.compile = given


def precision(settings: LoopSettings) -> Literal["bf16", "fp16", "fp32"]:
    """What this run computes in: as asked, else bf16 where the device has it fast, and fp32 elsewhere."""
    from byzerllm_adapters.loading import fast_bf16

    if settings.fp16:
        return "fp16"
    return "bf16" if (fast_bf16() if settings.bf16 is None else settings.bf16) else "fp32"


def start_engine(model: nn.Module, settings: LoopSettings, folder: JobFolder) -> Any:
    """Wrap ``model`` in a DeepSpeed engine with the run's optimizer over its trainable parameters.

    Raises:
        ByzerError: the device cannot do what the settings ask for.
    """
    import deepspeed
    import torch
    from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer

    on_gpu = torch.cuda.is_available()
    check_device(settings, gpu=on_gpu)
    kind = precision(settings)
    if kind == "bf16" and not on_gpu:
        attend_in_fp32(model)
    if settings.zero_stage < 3:
        fuse_adapter(model)
    optimizer = build_optimizer(model, settings)
    config = {
        "steps_per_print": 10**9,
        **settings.deepspeed,
        "train_micro_batch_size_per_gpu": settings.rows,
        "gradient_accumulation_steps": settings.accumulation,
        "gradient_clipping": 0.0 if _clips_itself(settings) else settings.clip,
        "bf16": {**settings.deepspeed.get("bf16", {}), "enabled": kind == "bf16"},
        "fp16": {**settings.deepspeed.get("fp16", {}), "enabled": kind == "fp16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if config.get("tensorboard", {}).get("enabled"):
        config["tensorboard"] = {"output_path": str(folder.tensorboard), "job_name": "rank-0"} | config["tensorboard"]
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    if isinstance(engine.optimizer, FP16_UnfusedOptimizer):  # bf16 without ZeRO
        # it has made a step on zero gradients, to allocate the state: AdamW, which counts its steps, would make
        # its first real one 26 % too short
        engine.optimizer.optimizer.state.clear()
    return engine


def fuse_adapter(model: nn.Module) -> None:
    """Compute a peft model's LoRA layers each as one operation (`lora_linear`)."""
    if hasattr(model, "peft_config"):
        from .lora_linear import fuse_lora

        fuse_lora(model)


def optimizer_step(engine: Any, settings: LoopSettings, learning_rate: float) -> float:
    """Clip, step, clear gradients; return the gradient norm before clipping."""
    import torch

    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    norm: float | None = None
    if _clips_itself(settings) and engine.is_gradient_accumulation_boundary():
        limit = settings.clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(engine.module.parameters(), limit))
    engine.step()
    return float(engine.get_global_grad_norm() or 0.0) if norm is None else norm


def _clips_itself(settings: LoopSettings) -> bool:
    """Plain fp32 without ZeRO: DeepSpeed clips there but keeps the norm to itself."""
    return settings.zero_stage == 0 and precision(settings) == "fp32"
