"""Where a gang's workers are: on many nodes, with their devices, and only where the job can run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.session import Session
from byzerllm_trainers.engine import local_place
from byzerllm_trainers.gang import Gang
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest
from byzerllm_trainers.versions import installed_versions
from tests.cluster.helpers import event_names, live_groups, pretraining
from tests.cluster.nodes import nodes


def asking_for(resource: str) -> Session:
    """A session whose jobs have one worker, which takes one of a resource that only the test's nodes have."""
    session = Session()
    session.setup("sfft", num_gpus=1, owner="tester", **{f"resource.{resource}": "1"})
    return session


def test_24_gpus_on_three_nodes_are_one_rank_each_and_meet_at_rank_0(session: Session, tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "wide")
    request = JobRequest(
        {"pretrainedModelType": "sfft/llama", "localModelDir": "m"},
        "tester",
        24,
        gpu=True,
        cpus_per_worker=0.1,
        threads_per_worker=1,
    )
    folder.create(request.as_record())
    gang = Gang(folder, request, folder.take_lease("test"))
    with nodes(*[{"CPU": 1, "GPU": 8}] * 3):
        try:
            assert gang.place(print, lambda: False)
            places = gang.start(installed_versions(), lambda: False)
        finally:
            gang.end()
    assert len({(place.node, place.devices) for place in places}) == 24, "each has a card of its own"
    assert sorted(Counter(place.node for place in places).values()) == [8, 8, 8]
    assert {local_place(rank, places, gpu=True) for rank in range(24)} == {(0, 1)}, "Ray shows each one card, device 0"
    assert len({place.process for place in places}) == 24


def test_a_folder_that_a_node_does_not_see_is_refused_before_training(
    session: Session, tiny_model: Path, corpus: Path, prefix: Path
) -> None:
    """The node has a mount namespace of its own, in which the folder of jobs is empty."""
    hide = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {prefix} && exec "$@"', "sh"]
    with nodes({"CPU": 1, "hidden": 1}, prefix=hide):
        job = asking_for("hidden").run(pretraining(tiny_model, corpus, prefix, name="unseen", stage=0))
        with pytest.raises(ByzerError, match="does not see the job's folder") as caught:
            job.wait()
    assert "localPathPrefix" in caught.value.do
    assert "running" not in event_names(job)
    assert not live_groups()


def test_a_node_with_another_version_is_refused_with_the_difference(
    session: Session, tiny_model: Path, corpus: Path, prefix: Path, tmp_path: Path
) -> None:
    """Its metadata of peft says 0.1: all that a version check sees."""
    metadata = tmp_path / "peft-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.1\n")
    with nodes({"CPU": 1, "older": 1}, environment={"PYTHONPATH": str(tmp_path)}):
        job = asking_for("older").run(pretraining(tiny_model, corpus, prefix, name="older", stage=0))
        with pytest.raises(ByzerError, match=r"other versions: peft 0\.1 \(here "):
            job.wait()
