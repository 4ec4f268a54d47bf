"""What an evaluation measures, and how the best checkpoint is known."""

import shutil

import pytest

from byzerllm_trainers.checkpoint import best_checkpoint, best_first, random_file, step_of
from byzerllm_trainers.job_folder import JobFolder, write_json
from byzerllm_trainers.restoring import restore_best
from tests.unit.trainers.arguments.bench import OTHERS, Bench
from tests.unit.trainers.helpers import plain_loss

pytestmark = pytest.mark.usefixtures("group")


def test_an_evaluation_is_the_mean_over_the_held_out_tokens_and_disturbs_nothing(bench: Bench) -> None:
    keys = {"lora": True, "dropout": 0.2}
    undisturbed = bench.run(3, **keys)
    ran = bench.run(3, eval_table="t", eval_steps=1, held_out=OTHERS, **keys)
    assert ran.digest() == undisturbed.digest()
    ran.engine.module.eval()
    assert ran.records[-1]["eval_loss"] == pytest.approx(plain_loss(ran.engine.module, OTHERS).item(), rel=1e-4)
    assert 0 <= ran.records[-1]["eval_accuracy"] <= 1


def test_a_damaged_best_checkpoint_is_told_and_the_next_best_used(bench: Bench) -> None:
    folder = bench.folder()
    ran = bench.run(3, folder=folder, eval_table="t", eval_steps=1, save_steps=1, held_out=OTHERS)
    first, *others = best_first(folder, "eval_loss")
    told: list[str] = []
    for used in (*others, None):
        random_file(first, 0).write_bytes(b"")
        step = restore_best(ran.engine, folder, "eval_loss", 0, step=99, tell=told.append)
        assert step == (99 if used is None else step_of(used))
        assert f"checkpoint {first.name}, the best by eval_loss, is damaged and not used: random-0.pt" in told[-1]
        told.clear()
        shutil.rmtree(first)
        first = used or first


def test_the_best_checkpoint_is_known_from_the_folder_alone(folder: JobFolder) -> None:
    """Whoever resumes has no memory."""
    for step, loss, accuracy in ((2, 3.0, 0.1), (4, 2.0, 0.3), (6, 2.0, 0.2), (8, 2.5, 0.3)):
        target = folder.checkpoints / f"step-{step}"
        target.mkdir()
        write_json(target / "manifest.json", {"step": step, "metrics": {"eval_loss": loss, "eval_accuracy": accuracy}})
    assert best_checkpoint(folder, "eval_loss") == folder.checkpoints / "step-4"
    assert best_checkpoint(folder, "eval_accuracy") == folder.checkpoints / "step-4"
