"""What the tests of `submit` share: a cluster without Ray, and rows."""

from typing import Any

import pyarrow as pa
import pytest

from byzerllm_trainers import coordinator

NODE = {"Alive": True, "Resources": {"CPU": 4.0}}
GPU_NODE = {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 4.0}}
DEAD = {"Alive": False, "Resources": {"CPU": 400.0, "GPU": 80.0}}


class Cluster:
    """What `submit` asks Ray, without Ray."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import ray

        self.nodes, self.actors, self.started = [NODE], set[str](), list[str]()
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "nodes", lambda: self.nodes)
        monkeypatch.setattr(ray, "get_actor", self._actor)
        monkeypatch.setattr(coordinator, "start_coordinator", self.started.append)

    def _actor(self, name: str, _namespace: str) -> None:
        if name not in self.actors:
            raise ValueError(name)


def rows(**columns: list[Any]) -> pa.Table:
    return pa.table(columns or {"instruction": ["Hello?", "How?"], "output": ["Hello.", "So."]})
