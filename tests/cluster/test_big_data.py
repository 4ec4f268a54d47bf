"""More rows than one process tokenises are tokenised on all cores of the cluster, to the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import corpus, recipe, tokenise
from byzerllm_trainers.corpus import keep_partitions
from byzerllm_trainers.job_folder import JobFolder, Record
from byzerllm_trainers.job_request import JobRequest, read_request
from byzerllm_trainers.recipe import Job
from byzerllm_trainers.shards import FILES, open_shards
from tests.cluster.helpers import eventually
from tests.cluster.nodes import nodes
from tests.tiny import instructions, texts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

ROWS, PART_ROWS = 700, 64


@pytest.fixture
def prepared(
    session: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Job, Record]]:
    """Prepares a job on the cluster or in this process, each below a folder of its own: nothing is found again."""
    monkeypatch.setattr(corpus, "PART_ROWS", PART_ROWS)

    def prepare(method: str, table: pa.Table, *, on_cluster: bool, **keys: object) -> tuple[Job, Record]:
        monkeypatch.setattr(tokenise, "IN_PROCESS_ROWS", PART_ROWS if on_cluster else 10 * ROWS)
        parameters = {"pretrainedModelType": f"{method}/llama", "localModelDir": str(tiny_model)}
        parameters |= {f"{method}.{key}": value for key, value in keys.items()}
        request = JobRequest(parameters, "me", 2, gpu=False, cpus_per_worker=1, threads_per_worker=1)
        folder = JobFolder(tmp_path / f"{method}-{on_cluster}" / "job")
        folder.create(request.as_record())
        corpus.keep_rows(folder, table)
        keep_partitions(folder, [table.num_rows - 5, 5])
        job = Job(folder, read_request(folder))
        return job, recipe.find(method).prepare(job)

    return prepare


@pytest.fixture
def no_free_cpu(session: Any) -> Iterator[None]:
    """What deployed models leave is reserved, as by the workers of the job that waits for its data."""
    import ray

    groups: list[Any] = []

    def taken() -> bool:
        free = ray.available_resources().get("CPU", 0.0)
        if free:
            groups.append(ray.util.placement_group([{"CPU": free}]))
            groups[-1].wait(5)
        return not ray.available_resources().get("CPU")

    eventually(taken)
    yield
    for group in groups:
        ray.util.remove_placement_group(group)


@pytest.mark.parametrize(
    ("method", "keys"), [("sft", {"max_seq_length": 60}), ("sft", {"eval_ratio": 0.1}), ("sfft", {})]
)
def test_the_cluster_writes_the_bytes_that_one_process_writes(
    prepared: Any, no_free_cpu: None, method: str, keys: dict[str, Any]
) -> None:
    table = pa.Table.from_pandas(instructions(ROWS) if method == "sft" else texts(ROWS))
    (here, counts), (there, others) = (prepared(method, table, on_cluster=each, **keys) for each in (False, True))
    assert counts == others
    for one, other in ((here.folder.shards, there.folder.shards), (here.folder.held_out, there.folder.held_out)):
        assert one.exists() == other.exists()
        if one.exists():
            assert all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)
            assert open_shards(one).partitions == open_shards(other).partitions
    assert {path.name for path in there.folder.data.iterdir()} == {path.name for path in here.folder.data.iterdir()}


def test_a_node_that_does_not_see_the_folder_tokenises_nothing(prepared: Any, tmp_path: Path) -> None:
    """The node has a mount namespace of its own, in which the folder of jobs is empty."""
    hide = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {tmp_path} && exec "$@"', "sh"]
    with nodes({"CPU": 4}, prefix=hide):
        _, counts = prepared("sfft", pa.Table.from_pandas(texts(ROWS)), on_cluster=True)
    assert counts["documents"] == ROWS


def test_the_first_row_that_does_not_fit_is_the_one_that_is_named(prepared: Any) -> None:
    rows = instructions(ROWS)
    rows.loc[[300, 650], "output"] = " "
    with pytest.raises(ByzerError, match="output is empty") as caught:
        prepared("sft", pa.Table.from_pandas(rows), on_cluster=True)
    assert caught.value.where == "row 300 (format alpaca)"


def test_rows_that_do_not_fit_are_dropped_alike(prepared: Any) -> None:
    rows = instructions(ROWS)
    rows.loc[[3, *range(PART_ROWS, 2 * PART_ROWS), ROWS - 2], "output"] = " "  # all of the second part
    table = pa.Table.from_pandas(rows)
    (here, counts), (there, others) = (
        prepared("sft", table, on_cluster=each, on_bad_row="drop") for each in (False, True)
    )
    assert counts == others
    assert counts["rows_dropped"] == PART_ROWS + 2
    one, other = here.folder.shards, there.folder.shards
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)
    assert (
        open_shards(one).partitions == open_shards(other).partitions == [0, ROWS - PART_ROWS - 6, ROWS - PART_ROWS - 2]
    )
