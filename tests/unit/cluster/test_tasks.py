"""Tasks that a cell waits for: results, errors, interrupts, and what they reserve; Ray is played here."""

from collections.abc import Iterable
from typing import Any

import pytest
import ray

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster.tasks import Reservation, reservation, run_task, run_tasks
from byzerllm_magics.parameters import SetupSettings, configure


class Stream:
    """Ray's stream of one task."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)

    def __next__(self) -> Any:
        return next(self._items)

    def completed(self) -> str:
        return "it has ended"


class Streams:
    """Ray's streams of tasks, played here: each yields what its work yields, and raises what is raised."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cancelled: list[Any] = []
        monkeypatch.setattr(ray, "remote", lambda _function: self)
        monkeypatch.setattr(ray, "wait", lambda streams, **_: (streams[:1], streams[1:]))
        monkeypatch.setattr(ray, "get", self.get)
        monkeypatch.setattr(ray, "cancel", self.cancelled.append)

    def options(self, **_options: Any) -> "Streams":
        return self

    def remote(self, work: Any) -> Any:
        return Stream(work())

    def get(self, item: Any, timeout: float | None = None) -> Any:
        if isinstance(item, BaseException):
            raise item
        return item


TAKES = Reservation(1.0, 0.0, {})


def test_each_task_gives_its_result_or_its_error_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import RayTaskError, WorkerCrashedError

    Streams(monkeypatch)
    wrong = ByzerError("no such row", where="row 3")
    told: list[str] = []
    works: Any = [
        ("one", lambda: ["loading", {"loss": 1.0}]),
        ("two", lambda: ["loading", RayTaskError("evaluate", "the traceback", wrong)]),
        ("three", lambda: [WorkerCrashedError()]),
    ]
    first, second, third = run_tasks(works, TAKES, told.append)
    assert first == {"loss": 1.0}
    assert second is wrong
    assert isinstance(third, ByzerError)
    assert "three: its process died" in third.what
    assert told == ["one: loading", "two: loading"]


def test_an_interrupt_cancels_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)
    works: Any = [("one", lambda: [KeyboardInterrupt()]), ("two", lambda: ["loading"])]
    with pytest.raises(ByzerError, match="interrupted: one, two: ended"):
        run_tasks(works, TAKES, lambda _: None)
    assert len(streams.cancelled) == 2


def test_the_error_of_a_single_task_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import WorkerCrashedError

    Streams(monkeypatch)
    with pytest.raises(ByzerError, match="its process died"):
        run_task("one", lambda: iter([WorkerCrashedError()]), TAKES, lambda _: None)  # type: ignore[list-item]


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
