"""What a machine has to train with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container's memory limit stands, by the kernel's version 2 and 1 of control groups."""


@dataclass(frozen=True)
class Gpu:
    """A GPU by its name, and its memory in bytes."""

    name: str
    memory: int


@dataclass(frozen=True)
class Machine:
    """A node.

    Attributes:
        memory: Bytes of main memory that a process here may take: a container's limit counts.
        gpus: Its GPUs.
    """

    memory: int
    gpus: tuple[Gpu, ...] = ()


def this_machine() -> Machine:
    """Describe the machine that this process runs on."""
    import psutil
    import torch

    limits = [Path(path).read_text("ascii").strip() for path in CGROUP_LIMITS if Path(path).is_file()]
    memory = min([int(psutil.virtual_memory().total), *(int(limit) for limit in limits if limit.isdigit())])
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [torch.cuda.get_device_properties(index) for index in range(count)]
    return Machine(memory, tuple(Gpu(each.name, int(each.total_memory)) for each in found))
