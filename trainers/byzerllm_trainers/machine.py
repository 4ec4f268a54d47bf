"""What a machine has to train with."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file")),
    (
        *("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("total_inactive_file", "total_active_file"),
    ),
)
"""Where a container's memory limit and use stand, and what of its memory.stat is files that can be read again, by the
kernel's version 2 and 1 of control groups; Ray reckons alike."""

USABLE = 0.95
"""Beyond this share of a node's memory Ray ends workers (RAY_memory_usage_threshold)."""


@dataclass(frozen=True)
class Gpu:
    """A GPU by its name, and its memory in bytes."""

    name: str
    memory: int


@dataclass(frozen=True)
class Machine:
    """A node.

    Attributes:
        memory: Bytes of main memory that processes here may still take before Ray ends them: a container's limit
            counts, and what is in use does not.
        gpus: Its GPUs.
        cpu_flops: FLOP/s that all its cores do together, by bytes of a number: 4 in fp32, 2 in bf16. Empty: it has
            GPUs, or nobody has measured.
    """

    memory: int
    gpus: tuple[Gpu, ...] = ()
    cpu_flops: Mapping[int, float] = field(default_factory=dict)


def this_machine() -> Machine:
    """Describe the machine that this process runs on; without GPUs, its cores are measured in a fifth of a second."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [torch.cuda.get_device_properties(index) for index in range(count)]
    gpus = tuple(Gpu(each.name, int(each.total_memory)) for each in found)
    return Machine(_free_memory(), gpus, {} if gpus else {4: _cpu_flops("float32"), 2: _cpu_flops("bfloat16")})


def _free_memory() -> int:
    import psutil

    whole = psutil.virtual_memory()
    known = [(int(whole.total), int(whole.total - whole.available))]
    for folder, limit, used, cached in CGROUPS:
        files = [Path(folder, name) for name in (limit, used, "memory.stat")]
        if all(file.is_file() for file in files):
            most, now, lines = (file.read_text("ascii").strip() for file in files)
            stat = dict(line.split() for line in lines.splitlines())
            if most.isdigit():  # "max": there is none
                known.append((int(most), int(now) - sum(int(stat.get(name, 0)) for name in cached)))
    return min(max(0, round(USABLE * total) - used) for total, used in known)


def _cpu_flops(dtype: str) -> float:
    """Return the FLOP/s of a product of matrices of the size that training has."""
    import torch

    size, threads = 1024, torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)  # Ray gives a task that asks for no CPU one thread
    try:
        with torch.inference_mode():
            matrix = torch.ones(size, size, dtype=getattr(torch, dtype))
            matrix @ matrix
            best, until = float("inf"), time.perf_counter() + 0.1
            while time.perf_counter() < until:
                begun = time.perf_counter()
                matrix @ matrix
                best = min(best, time.perf_counter() - begun)
    finally:
        torch.set_num_threads(threads)
    return 2 * size**3 / best
