"""Another job's checkpoint is looked at before a job that is to begin with it exists."""

from pathlib import Path
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import submit
from byzerllm_trainers.checkpoint import find_checkpoint
from byzerllm_trainers.job_folder import JobFolder, write_json
from tests.unit.trainers.submitting import Cluster, rows


def with_checkpoint(folder: JobFolder, step: int) -> Path:
    place = folder.checkpoints / f"step-{step}"
    place.mkdir()
    write_json(place / "manifest.json", {"step": step, "files": {}})
    return place


@pytest.fixture
def earlier(cluster: Cluster, keys: dict[str, Any]) -> JobFolder:
    """A job of rank 8 that has come to step 10."""
    folder = submit.submit(keys | {"name": "earlier", "sft.r": "8"}, owner="me", table=rows())
    with_checkpoint(folder, 10)
    return folder


def test_a_job_of_the_same_weights_begins_there(keys: dict[str, Any], earlier: JobFolder) -> None:
    for place in (earlier.root, earlier.checkpoints / "step-10"):
        given = keys | {"name": f"from-{place.name}", "sft.r": "8", "sft.resume_from_checkpoint": str(place)}
        assert submit.submit(given, owner="me", table=rows()).exists()


@pytest.mark.parametrize(
    ("other", "what", "do"),
    [
        ({"sft.r": "16"}, "was trained with lora_rank=8, and this job has 16", 'write sft.lora_rank="8"'),
        ({"sft.finetuning_type": "full"}, "finetuning_type=lora, and this job has full", 'finetuning_type="lora"'),
        ({"sft.r": "8", "sft.optim": "sgd"}, "optim=adamw_torch", 'write sft.optim="adamw_torch"'),
        ({"sft.r": "8", "sft.target_modules": "q_proj,v_proj"}, "and this job has q_proj,v_proj", "all-linear"),
        ({"sft.r": "8", "sft.max_steps": "10"}, "at step 10, and this job ends at step 10", "a higher max_steps"),
    ],
)
def test_one_of_other_weights_or_behind_the_end_is_refused(
    keys: dict[str, Any], earlier: JobFolder, other: dict[str, str], what: str, do: str
) -> None:
    given = keys | {"name": "later", "sft.resume_from_checkpoint": str(earlier.root)} | other
    with pytest.raises(ByzerError, match=what) as caught:
        submit.submit(given, owner="me", table=rows())
    assert do in caught.value.do
    assert not (earlier.root.parent / "later").exists()


def test_a_job_without_a_checkpoint_says_what_else_there_is(keys: dict[str, Any], cluster: Cluster) -> None:
    folder = submit.submit(keys | {"name": "earlier"}, owner="me", table=rows())
    with pytest.raises(ByzerError, match="job earlier has saved no checkpoint") as caught:
        find_checkpoint(str(folder.root))
    assert caught.value.do == '"%byzerllm resume earlier" begins it again'
    folder.model.mkdir()
    with pytest.raises(ByzerError, match="has saved no checkpoint") as caught:
        find_checkpoint(str(folder.root))
    assert str(folder.model) in caught.value.do


def test_a_damaged_one_is_told_as_such(earlier: JobFolder) -> None:
    manifest = earlier.checkpoints / "step-10" / "manifest.json"
    write_json(manifest, {"step": 10, "files": {"state/weights": {"bytes": 1, "sha256": ""}}})
    with pytest.raises(ByzerError, match="step-10 is damaged, state/weights is missing, and there is no other"):
        find_checkpoint(str(earlier.root))
