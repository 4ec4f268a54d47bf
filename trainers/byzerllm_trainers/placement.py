"""Where a job runs: what its workers take of a cluster, and which nodes do what needs no room of its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from byzerllm_adapters.errors import ByzerError

RESERVED_SHARE = 0.75
"""Share of a node's CPUs that a job's CPU workers reserve: the rest lets a deployed model answer meanwhile."""

LEAST_CPUS = 0.5
"""What a CPU worker reserves at least; more workers than fit at this rate are refused."""

ANSWER_SECONDS = 30.0
"""A node that does not answer in this time is not used: starting a process there may take seconds."""


def placement(workers: int, num_cpus: float | None, resources: dict[str, float], *, one_node: bool) -> dict[str, Any]:
    """Decide what each worker reserves and computes with; return it as `JobRequest` names it.

    Args:
        workers: How many there are to be.
        num_cpus: CPUs that Ray reserves for each; None: what leaves room for a deployment.
        resources: Custom Ray resources of each.
        one_node: Whether all have to be on one node.

    Raises:
        ByzerError: there is no cluster, or it can never place that many.
    """
    import ray

    if not ray.is_initialized():
        raise ByzerError("this process is not connected to a Ray cluster", do="call Session().connect() or ray.init()")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpu = any(node.get("GPU") for node in nodes)
    cores = max(node.get("CPU", 0.0) for node in nodes)
    per_node = workers if one_node else math.ceil(workers / len(nodes))
    cpus = num_cpus or (1.0 if gpu else max(LEAST_CPUS, min(1.0, int(100 * RESERVED_SHARE * cores / per_node) / 100)))
    bundle = {"CPU": cpus, **resources} | ({"GPU": 1.0} if gpu else {})
    room = [min(int(node.get(kind, 0) / need + 1e-9) for kind, need in bundle.items() if need) for node in nodes]
    placeable = max(room) if one_node else sum(room)
    if workers > placeable:
        have = ", ".join(f"{sum(node.get(kind, 0) for node in nodes):g} {kind}" for kind in bundle)
        where = "one node" if one_node else "the cluster"
        raise ByzerError(
            f"{workers} workers asked, {placeable} fit on {where}: each takes "
            + ", ".join(f"{need:g} {kind}" for kind, need in bundle.items()),
            where=f"the cluster has {have} on {len(nodes)} node{'s' * (len(nodes) > 1)}",
            do=f'lower "num_gpus" (setup) to {placeable} or less, or add nodes' if placeable else "add nodes",
        )
    # all cores for the one gang of a CPU machine, unless the user has said how many CPUs a worker takes
    threads = max(1, int(cpus if gpu or num_cpus else cores // per_node))
    return {
        "workers": workers,
        "gpu": gpu,
        "cpus_per_worker": cpus,
        "threads_per_worker": threads,
        "resources": resources,
    }


def on_node(node: str | None = None) -> Any:
    """Return the scheduling strategy that keeps a task or actor on a node as long as that node lives.

    Left to itself Ray may choose one that does not see the job's folder.

    Args:
        node: Ray's id of it; None: this process's, which sees what it has written.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node or ray.get_runtime_context().get_node_id(), soft=True)


def cores_that_see(folder: Path) -> list[str]:
    """Return the nodes on which a folder exists, each as often as it has CPUs; this one at least once.

    Args:
        folder: An existing one.
    """
    import ray

    cores = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
    here = ray.get_runtime_context().get_node_id()
    sees = ray.remote(num_cpus=0, max_retries=0)(Path.is_dir)
    asked = {sees.options(scheduling_strategy=on_node(node)).remote(folder): node for node in cores if node != here}
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else ([], [])
    for task in late:
        ray.cancel(task, force=True)
    seeing = [asked[task] for task in done if _answer(task)]
    return [here] * max(1, cores[here]) + [node for node in seeing for _ in range(cores[node])]


def _answer(task: Any) -> bool:
    """Return what a task found; a node that has died meanwhile sees nothing."""
    import ray

    try:
        return bool(ray.get(task))
    except ray.exceptions.RayError:
        return False
