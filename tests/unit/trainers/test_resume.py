"""Checkpoints: what counts as one, how many are kept, and that a resumed run is the uninterrupted one."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from byzerllm_trainers.checkpoint import committed, is_whole
from byzerllm_trainers.job_folder import JobFolder, LeaseLost
from byzerllm_trainers.loop_settings import LoopSettings
from byzerllm_trainers.saving import Saver
from tests.unit.trainers.helpers import Ran, examples, load, run, settings

pytestmark = [pytest.mark.usefixtures("group"), pytest.mark.slow]

ROWS = examples([40, 7, 23, 12, 3, 31, 18, 9, 26, 14])
TOTAL = 8


@pytest.fixture
def make_folder(tmp_path: Path) -> Any:
    def make(name: str) -> JobFolder:
        folder = JobFolder(tmp_path / name)
        folder.create({})
        return folder

    return make


def chosen(stage: int = 0, **keys: Any) -> LoopSettings:
    keys = {"per_device_train_batch_size": 2, "learning_rate": 1e-2, "save_total_limit": 9, **keys}
    return settings(deepspeed={"zero_optimization": {"stage": stage}}, **keys)


def trained(model_dir: Path, folder: JobFolder, keys: LoopSettings, stop_at: int = 0, lora: bool = True) -> Ran:
    model = load(model_dir, lora=lora, dropout=0.2)
    return run(model, ROWS, keys, TOTAL, folder, should_stop=lambda step: step == stop_at)


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("stage", [0, 2])
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(
    tiny_model: Path, make_folder: Any, stage: int, lora: bool
) -> None:
    """With dropout on, and over the end of an epoch."""
    keys = chosen(stage)
    whole = trained(tiny_model, make_folder("whole"), keys, lora=lora)
    broken = make_folder("broken")
    first = trained(tiny_model, broken, keys, stop_at=3, lora=lora)
    second = trained(tiny_model, broken, keys, lora=lora)
    assert first.digest() != whole.digest()
    assert second.digest() == whole.digest()
    assert first.losses + second.losses == whole.losses
    assert second.outcome.state == "finished"


@pytest.mark.parametrize("keys", [{"bf16": True}, {"neftune_noise_alpha": 5}, {"optim": "adafactor"}], ids=str)
def test_so_does_one_in_bf16_with_noise_or_with_another_optimizer(
    tiny_model: Path, make_folder: Any, keys: dict[str, Any]
) -> None:
    whole = trained(tiny_model, make_folder("whole"), chosen(**keys))
    broken = make_folder("broken")
    first = trained(tiny_model, broken, chosen(**keys), stop_at=3)
    second = trained(tiny_model, broken, chosen(**keys))
    assert first.losses + second.losses == whole.losses


def test_dropout_makes_a_difference_to_those_bits(tiny_model: Path, make_folder: Any) -> None:
    keys = chosen()
    dropping = trained(tiny_model, make_folder("a"), keys)
    keeping = run(load(tiny_model, lora=True), ROWS, keys, TOTAL, make_folder("b"))
    assert dropping.digest() != keeping.digest()


@pytest.fixture
def three(tiny_model: Path, make_folder: Any) -> JobFolder:
    """A job that was stopped at its third step, with a checkpoint at each."""
    folder: JobFolder = make_folder("three")
    trained(tiny_model, folder, chosen(save_steps=1), stop_at=3)
    assert [path.name for path in committed(folder)] == ["step-1", "step-2", "step-3"]
    return folder


def change_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def no_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def changed_weights(checkpoint: Path) -> None:
    change_a_byte(checkpoint / "state" / "mp_rank_00_model_states.pt")


def changed_random_state(checkpoint: Path) -> None:
    change_a_byte(checkpoint / "random-0.pt")


def lost_file(checkpoint: Path) -> None:
    (checkpoint / "random-0.pt").unlink()


def torn_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").write_text('{"step": 3, "fi')


DAMAGES = [no_manifest, changed_weights, changed_random_state, lost_file, torn_manifest]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_does_not_count_and_the_one_before_is_used(
    tiny_model: Path, make_folder: Any, three: JobFolder, damage: Any
) -> None:
    damage(three.checkpoints / "step-3")
    resumed = trained(tiny_model, three, chosen())
    assert resumed.records[0]["step"] == 3
    assert resumed.digest() == trained(tiny_model, make_folder("whole"), chosen()).digest()
    assert bool(resumed.notes) == (damage is not no_manifest), "a torn one was never told of"


def test_what_is_damaged_is_told_and_put_aside(tiny_model: Path, three: JobFolder) -> None:
    lost_file(three.checkpoints / "step-3")
    assert trained(tiny_model, three, chosen()).notes == [
        "checkpoint step-3 is damaged and not used, random-0.pt is missing: it is now damaged-step-3"
    ]
    assert (three.checkpoints / "damaged-step-3" / "manifest.json").exists()


def test_without_a_whole_checkpoint_training_begins_anew(tiny_model: Path, three: JobFolder) -> None:
    for checkpoint in committed(three):
        changed_weights(checkpoint)
    assert trained(tiny_model, three, chosen()).records[0]["step"] == 1


def test_a_damaged_checkpoint_does_not_push_out_a_whole_one(tiny_model: Path, three: JobFolder) -> None:
    """One is kept: the one just written, though the damaged one has the higher number."""
    changed_weights(three.checkpoints / "step-3")
    shutil.rmtree(three.checkpoints / "step-2")
    trained(tiny_model, three, chosen(save_total_limit=1), stop_at=1)
    [kept] = committed(three)
    assert (kept.name, is_whole(kept)) == ("step-2", True)


@pytest.mark.parametrize(("limit", "left"), [(1, ["step-8"]), (2, ["step-6", "step-8"])])
def test_only_so_many_checkpoints_are_kept(tiny_model: Path, make_folder: Any, limit: int, left: list[str]) -> None:
    folder = make_folder("job")
    ran = trained(tiny_model, folder, chosen(save_steps=2, save_total_limit=limit))
    assert ran.saved == [2, 4, 6, 8]
    assert [path.name for path in committed(folder)] == left
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == left


def test_checkpoints_are_ordered_by_number_not_by_name(folder: JobFolder) -> None:
    for step in (9, 10, 100):
        target = folder.checkpoints / f"step-{step}"
        target.mkdir()
        (target / "manifest.json").write_text("{}")
    assert [path.name for path in committed(folder)] == ["step-9", "step-10", "step-100"]


def test_a_manifest_names_every_file_with_size_and_checksum(three: JobFolder) -> None:
    checkpoint = three.checkpoints / "step-3"
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    files = {str(p.relative_to(checkpoint)): p.stat().st_size for p in checkpoint.rglob("*") if p.is_file()}
    files.pop("manifest.json")
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == files
    assert manifest["step"] == 3


def test_a_job_that_had_finished_does_nothing_more(tiny_model: Path, make_folder: Any) -> None:
    folder = make_folder("job")
    first = trained(tiny_model, folder, chosen())
    again = trained(tiny_model, folder, chosen())
    assert (again.outcome.state, again.outcome.steps, again.records) == ("finished", TOTAL, [])
    assert again.digest() == first.digest()


class Fence:
    """Lets a number of writes pass, then none: the lease was taken over meanwhile."""

    def __init__(self, passes: int) -> None:
        self.left = passes

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise LeaseLost("attempt 2 took over")


@pytest.mark.parametrize(("passes", "step"), [(0, 3), (1, 4)], ids=["before anything is removed", "before the commit"])
def test_who_has_lost_the_lease_commits_no_checkpoint_and_removes_none(
    tiny_model: Path, make_folder: Any, passes: int, step: int
) -> None:
    folder = make_folder("fenced")
    ran = trained(tiny_model, folder, chosen(save_total_limit=1), stop_at=3)
    before = {path: sha256(path) for path in folder.checkpoints.rglob("*") if path.is_file()}
    saver = Saver(ran.engine, folder, 0, keep=1, fence=Fence(passes))

    def save() -> None:
        saver.begin(step, {})
        saver.finish()

    with pytest.raises(LeaseLost):
        save()
    assert [path.name for path in committed(folder)] == ["step-3"]
    assert {path: sha256(path) for path in before} == before


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
