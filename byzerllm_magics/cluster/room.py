"""Room for a replica: what no node could ever hold is refused; what is taken now is told with who has it."""

from __future__ import annotations

from byzerllm_adapters.errors import ByzerError


def check(cpus: float, gpus: float, what: str = "a replica") -> None:
    """Refuse what no node could ever hold; ``what`` is who asks.

    Raises:
        ByzerError: with what there is.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        most = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)))
        raise ByzerError(
            f"{what} takes {gpus:g} GPUs and {cpus:g} CPUs, and no node has that many",
            where=f"the largest node has {most.get('GPU', 0):g} GPUs and {most.get('CPU', 0):g} CPUs",
            do='lower "num_gpus" or "num_cpus" (setup)',
        )


def missing(cpus: float, gpus: float, *, besides: str, what: str = "a replica") -> str:
    """Return what is not free of what a replica takes, and who holds it; "" when there is room.

    Args:
        cpus: CPUs of a replica.
        gpus: GPUs of a replica.
        besides: The application that asks, which does not count as a holder.
        what: Who asks.
    """
    import ray

    free = ray.available_resources()
    short = [
        f"{need:g} {kind} (free: {free.get(kind, 0):.2g})"
        for kind, need in (("GPU", gpus), ("CPU", cpus))
        if need > free.get(kind, 0)
    ]
    return f"{what} takes {' and '.join(short)}; {_holders(besides)}" if short else ""


def _holders(besides: str) -> str:
    """Return the deployed models and the jobs that run, by name."""
    from ray.util import list_named_actors

    from byzerllm_trainers.gang import NAMESPACE

    from .deployments import listed

    models = [deployment.name for deployment in listed() if deployment.application != besides]
    actors = [actor["name"] for actor in list_named_actors(all_namespaces=True) if actor["namespace"] == NAMESPACE]
    jobs = [name for name in actors if not name.startswith("W-")]
    parts = [f"{what} {', '.join(sorted(names))}" for what, names in (("model", models), ("job", jobs)) if names]
    return f"held by {'; '.join(parts)}" if parts else "somebody else on this cluster holds it"
