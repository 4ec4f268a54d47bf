"""What a rank does apart from training, without Ray."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import recipe
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.worker import Worker, keep_log
from byzerllm_trainers.worker_errors import told
from tests.tiny import instructions


@pytest.fixture(autouse=True)
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker replaces the streams of its process, and its environment."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_what_a_process_prints_is_kept_and_still_printed(folder: JobFolder, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder.logs / "rank-0.log"
    keep_log(path)
    print("一步 done")
    print("trouble", file=sys.stderr)
    assert path.read_text(encoding="utf-8") == "一步 done\ntrouble\n"
    assert capsys.readouterr() == ("一步 done\n", "trouble\n")


def test_a_second_attempt_goes_on_in_the_same_log(folder: JobFolder) -> None:
    path = folder.logs / "rank-0.log"
    path.write_text("first attempt\n")
    keep_log(path)
    print("second attempt")
    assert path.read_text() == "first attempt\nsecond attempt\n"


@pytest.mark.parametrize("fails", [False, True])
def test_whoever_waits_for_a_driven_rank_gets_its_outcome_or_its_error(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    worker = Worker(str(folder.root), rank=0, attempt=1, threads=1)
    error = ByzerError("the loss became nan at step 4")

    def train() -> dict[str, int]:
        if fails:
            raise error
        return {"steps": 3}

    monkeypatch.setattr(worker, "_train", train)
    heard: list[object] = []

    def listen() -> None:
        try:
            heard.append(worker.outcome())
        except ByzerError as what:
            heard.append(what)

    listener = threading.Thread(target=listen)
    listener.start()
    listener.join(0.05)
    assert listener.is_alive(), "it does not answer before the end"
    if fails:
        with pytest.raises(ByzerError):
            worker.train()
    else:
        worker.train()
    listener.join(10)
    assert heard == ([error] if fails else [{"steps": 3}])


def test_a_ranks_own_error_is_told_with_its_place() -> None:
    error = told(ByzerError("no such row", do="look at it"), "rank 3", "job")
    assert error.render() == ["ByzerError: no such row", "rank 3", "→ look at it"]
    elsewhere = ByzerError("not JSON", where="a.jsonl, line 2")
    assert told(elsewhere, "tokenising", "job").where == "a.jsonl, line 2"


def test_any_other_error_is_told_in_a_few_lines_with_the_way_to_its_traceback() -> None:
    error = told(RuntimeError("size mismatch\n" + "a line of detail\n" * 40), "rank 1", "job")
    assert error.what == "rank 1: RuntimeError: size mismatch a line of detail"
    assert "%byzerllm logs job" in error.do
    assert len(error.render()) <= 5


def test_an_error_that_ray_wraps_keeps_the_traceback_for_the_log() -> None:
    """The coordinator prints the wrapped error and tells its cause."""
    from ray.exceptions import RayTaskError

    wrapped = RayTaskError("train", "Traceback: here", ValueError("no")).as_instanceof_cause()
    assert "Traceback: here" in str(wrapped)
    assert told(wrapped.cause, "rank 0", "job").what == "rank 0: ValueError: no"


ONE_RANK = """
import json, socket, sys
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.processes import Place
from byzerllm_trainers.worker import Worker, keep_log

folder = JobFolder(sys.argv[1])
worker = Worker(str(folder.root), 0, folder.take_lease("test"), threads=1)
keep_log(folder.logs / "rank-0.log")
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
worker.meet([Place("127.0.0.1", port)])
(folder.root / "outcome.json").write_text(json.dumps(worker.train()))
"""


def test_a_rank_evaluates_reports_and_exports_the_best_of_its_checkpoints(make_job: Any) -> None:
    """In a process of its own, as under Ray: it joins and leaves a gang."""
    keys = {"eval_ratio": 0.25, "save_steps": 2, "load_best_model_at_end": True, "logging_steps": 3, "bf16": False}
    keys |= {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 0.5}
    job = make_job("sft", pa.Table.from_pandas(instructions(16)), **keys)
    recipe.find("sft").prepare(job)
    subprocess.run([sys.executable, "-c", ONE_RANK, str(job.folder.root)], check=True, capture_output=True, timeout=200)

    outcome = json.loads((job.folder.root / "outcome.json").read_text())
    metrics = job.folder.metrics()
    losses = {record["step"]: record["eval_loss"] for record in metrics if "eval_loss" in record}
    assert [record["step"] for record in metrics] == [1, 2, 3, 4, 5, 6]
    assert list(losses) == [2, 3, 4, 6], "each checkpoint, and the end of each epoch"
    best = min((loss, step) for step, loss in losses.items() if step % 2 == 0)[1]
    assert (outcome["state"], outcome["steps"], outcome["model_step"]) == ("finished", 6, best)
    log = (job.folder.logs / "rank-0.log").read_text()
    assert "step 3/6: loss" in log
    assert "step 5/6" not in log
    assert f"model and tokenizer, as of step {best}: {job.folder.model}" in log
    assert list(job.folder.tensorboard.rglob("events.out.*"))
    assert Path(job.folder.model, "adapter_model.safetensors").is_file()
