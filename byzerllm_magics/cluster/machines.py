"""The machines that a job may run on: the cluster's nodes, or this one where no cluster runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import connection

if TYPE_CHECKING:
    from byzerllm_trainers.machine import Machine

ANSWER_SECONDS = 30.0
"""A node whose task has no answer by then is not counted: it may have no free process."""


def machines(address: str | None) -> tuple[list[Machine], str]:
    """Return the machines, and in words which they are. No cluster is started.

    Args:
        address: ``rayAddress`` of the settings.

    Raises:
        ByzerError: a cluster is there and does not answer.
    """
    from byzerllm_trainers.machine import this_machine

    if not connection.runs(address):
        return [this_machine()], "this machine alone: no cluster is running"
    connection.connect(address, start=False)
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    describe = ray.remote(this_machine)
    asked = []
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            # a task sees the GPUs that it asks for, and asking for all would wait for them: the node tells itself
            options = {"num_cpus": 0, "scheduling_strategy": there, "runtime_env": _ALL_GPUS}
            asked.append(describe.options(**options).remote())
    done, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)
    found: list[Machine] = ray.get(done)
    return found, f"{len(found)} of the cluster's {len(asked)} node{'s' * (len(asked) != 1)}"


_ALL_GPUS = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
"""Ray hides a node's GPUs from a task that asks for none, unless it is told to leave the variable alone."""
