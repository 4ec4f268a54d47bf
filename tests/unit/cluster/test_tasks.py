"""What a task of a cell reserves, without a cluster."""

from typing import Any

import pytest
import ray

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster.tasks import reservation
from byzerllm_magics.parameters import SetupSettings, configure


def cluster_of(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float]) -> None:
    total: dict[str, float] = {}
    for node in nodes:
        total |= {kind: total.get(kind, 0) + amount for kind, amount in node.items()}
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    monkeypatch.setattr(ray, "cluster_resources", lambda: total)


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus"),
    [([{"CPU": 2}], 1.5, 0), ([{"CPU": 2}, {"CPU": 8}], 6, 0), ([{"CPU": 8}, {"CPU": 4, "GPU": 2}], 1, 1)],
)
def test_a_model_gets_a_gpu_or_most_of_a_node(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], cpus: float, gpus: float
) -> None:
    cluster_of(monkeypatch, *nodes)
    takes = reservation(SetupSettings())
    assert (takes.cpus, takes.gpus, takes.resources) == (cpus, gpus, {})


def test_the_settings_have_the_last_word_and_what_no_node_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_of(monkeypatch, {"CPU": 2})
    changes: dict[str, Any] = {"num_cpus": "0.5", "resource.worker_1": "0.1"}
    takes = reservation(configure(SetupSettings(), None, changes))
    assert (takes.cpus, dict(takes.resources)) == (0.5, {"worker_1": 0.1})
    with pytest.raises(ByzerError, match="a task takes 0 GPUs and 3 CPUs, and no node has that many"):
        reservation(configure(SetupSettings(), None, {"num_cpus": "3"}))
