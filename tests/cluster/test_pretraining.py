"""Pretraining on a gang: the job folder, the result, what is left behind, equality over ranks, exact resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.helpers import (
    STEPS,
    Observed,
    actor_lives,
    event_names,
    eventually,
    live_groups,
    pretraining,
    sha256,
    worker_pid,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_the_job_folder_holds_what_the_design_says(pretrained: Observed) -> None:
    root = pretrained.job.folder.root
    expected = {
        "job.json",
        "lease.json",
        "leases",
        "metrics.jsonl",
        "events.jsonl",
        "data",
        "checkpoints",
        "logs",
        "model",
        ".reserve",
    }
    assert {path.name for path in root.iterdir()} - {"tensorboard", f"converted-step-{STEPS}"} == expected
    request = json.loads((root / "job.json").read_text())
    assert request["workers"] == 2
    assert request["versions"].keys() >= {"python", "torch", "transformers", "deepspeed", "ray"}
    assert json.loads((root / "lease.json").read_text())["attempt"] == 1
    assert {path.name for path in (root / "logs").iterdir()} == {"coordinator.log", "rank-0.log", "rank-1.log"}
    assert (root / "data" / "shards" / "manifest.json").is_file()


def test_a_checkpoints_manifest_names_every_file_with_size_and_checksum(pretrained: Observed) -> None:
    _, checkpoint = sorted((pretrained.job.folder.root / "checkpoints").iterdir())
    assert checkpoint.name == f"step-{STEPS}"
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert manifest["step"] == STEPS
    written = {p for p in checkpoint.rglob("*") if p.is_file() and p.name != "manifest.json"}
    files = {p for p in written if p.suffix != ".py"}  # DeepSpeed puts a script of its own beside them
    assert {checkpoint / name for name in manifest["files"]} == files
    for name, recorded in manifest["files"].items():
        assert recorded["bytes"] == (checkpoint / name).stat().st_size
        assert recorded["sha256"] == sha256(checkpoint / name)


def test_metrics_are_keyed_by_attempt_and_step(pretrained: Observed) -> None:
    lines = [json.loads(line) for line in (pretrained.job.folder.root / "metrics.jsonl").read_text().splitlines()]
    assert [(line["attempt"], line["step"]) for line in lines] == [(1, step) for step in range(1, STEPS + 1)]


def test_events_tell_the_course_of_the_job(pretrained: Observed) -> None:
    names = event_names(pretrained.job)
    assert sorted(set(names[:3])) == ["prepared", "preparing", "starting"], "workers start while data is prepared"
    assert names[3:] == ["running", *["checkpoint"] * (STEPS // 10), "finished"]


def test_the_loss_fell(pretrained: Observed) -> None:
    assert pretrained.row["status"] == "finished"
    assert pretrained.row["last_loss"] < pretrained.row["first_loss"] - 1


def test_its_actors_had_the_documented_names(pretrained: Observed) -> None:
    name = pretrained.job.name
    assert pretrained.actors == {name, f"W-0-{name}", f"W-1-{name}"}
    assert pretrained.namespaces == {"byzerllm"}


def test_nothing_of_it_is_left_on_the_cluster(pretrained: Observed) -> None:
    eventually(lambda: not any(map(actor_lives, pretrained.actors)), 20)
    eventually(lambda: not live_groups(), 20)


def test_the_result_is_a_whole_transformers_folder_with_a_chat_template(pretrained: Observed) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, info = AutoModelForCausalLM.from_pretrained(pretrained.job.model, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert AutoTokenizer.from_pretrained(pretrained.job.model).chat_template


@pytest.mark.parametrize(("workers", "stage"), [(1, 0), (2, 0), (2, 3)])
def test_losses_do_not_depend_on_workers_or_zero_stage(
    session: Any, pretrained: Observed, tiny_model: Path, corpus: Path, prefix: Path, workers: int, stage: int
) -> None:
    name = f"workers-{workers}-zero-{stage}"
    session.configure(settings={"num_gpus": workers})
    try:
        parameters = pretraining(tiny_model, corpus, prefix, name=name, stage=stage, rows=8 // workers)
        job = session.run(parameters)
        job.wait()
    finally:
        session.configure(settings={"num_gpus": 2})
    theirs = list(job.metrics().loss[:10])
    assert theirs == pytest.approx(list(pretrained.job.metrics().loss[:10]), abs=1e-3)


@pytest.fixture(scope="module")
def resumed(session: Any, pretrained: Observed, tiny_model: Path, corpus: Path, prefix: Path) -> Any:
    """The same job again; its second worker is killed after the first checkpoint."""
    import psutil

    job = session.run(pretraining(tiny_model, corpus, prefix, name="killed", stage=2))
    eventually(lambda: "running" in event_names(job), 120)
    victim = psutil.Process(worker_pid("W-1-killed"))
    eventually(lambda: "checkpoint" in event_names(job), 120)
    victim.kill()
    job.wait()
    return job


def test_a_killed_worker_costs_the_steps_since_the_last_checkpoint_only(resumed: Any) -> None:
    names = event_names(resumed)
    assert names.count("running") == 2
    assert "restarting" in names
    assert names[-1] == "finished"
    assert json.loads((resumed.folder.root / "lease.json").read_text())["attempt"] == 2
    lines = [json.loads(line) for line in (resumed.folder.root / "metrics.jsonl").read_text().splitlines()]
    again = [line["step"] for line in lines if line["attempt"] == 2]
    assert again[0] % 10 == 1, "it began behind a checkpoint"
    assert again[0] > 1
    assert {event["attempt"] for event in resumed.folder.events()} == {1, 2}


def test_a_reader_sees_every_step_once(resumed: Any) -> None:
    assert list(resumed.metrics().step) == list(range(1, STEPS + 1))


def test_the_resumed_weights_are_the_uninterrupted_ones_bit_for_bit(resumed: Any, pretrained: Observed) -> None:
    ours, theirs = (Path(job.model) / "model.safetensors" for job in (resumed, pretrained.job))
    assert sha256(ours) == sha256(theirs)
