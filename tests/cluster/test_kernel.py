"""The magics in a real kernel: cells return, interrupts detach, errors are short, another kernel sees it all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from byzerllm_adapters.errors import MAX_LINES
from byzerllm_magics.widgets.live_output import WIDGET_VIEW
from tests.cluster.helpers import event_names, eventually, pretraining, python, worker_pid
from tests.cluster.kernels import Cell, Kernel

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SETUP = "%%byzerllm setup\nsfft\nnum_gpus=2\nowner=tester"


@pytest.fixture(scope="module")
def kernel(session: Any) -> Iterator[Kernel]:
    """A kernel that is set up."""
    kernel = Kernel()
    try:
        assert kernel.run("%load_ext byzerllm_magics").status == "ok"
        yield kernel
    finally:
        kernel.close()


@pytest.fixture(scope="module")
def setup(kernel: Kernel, cluster: Any) -> Cell:
    """The cell that connects."""
    return kernel.run(SETUP)


@dataclass(frozen=True)
class Started:
    """The cell that started a job of many steps, and the job as this process sees it."""

    cell: Cell
    job: Any


@pytest.fixture(scope="module")
def started(kernel: Kernel, setup: Cell, session: Any, tiny_model: Path, corpus: Path, prefix: Path) -> Started:
    """A job that would run for hours."""
    keys = pretraining(tiny_model, corpus, prefix, name="watched", stage=2, steps=100_000)
    cell = kernel.run("%%byzerllm run\n" + "\n".join(f"and `{key}`='''{value}'''" for key, value in keys.items()))
    assert cell.status == "ok", cell.traceback
    job = session.job("watched")
    eventually(job.folder.metrics, 120)
    return Started(cell, job)


def test_setup_answers_with_a_card(setup: Cell, cluster: Any) -> None:
    assert setup.status == "ok"
    (text,) = setup.shown("text/plain")
    assert cluster.address in text
    assert "num_gpus=2" in text
    assert setup.shown("text/html")


def test_a_jobs_cell_returns_while_the_job_runs_on(started: Started) -> None:
    assert started.cell.seconds < 10
    assert started.cell.shown(WIDGET_VIEW)
    before = started.job.folder.metrics()[-1]["step"]
    eventually(lambda: started.job.folder.metrics()[-1]["step"] > before, 30)


def test_interrupting_a_wait_prints_one_line_and_the_job_runs_on(kernel: Kernel, started: Started) -> None:
    begun = time.monotonic()
    cell = kernel.run("%byzerllm wait watched", interrupt_when=lambda _: time.monotonic() - begun > 2)
    assert cell.status == "ok"
    assert cell.printed.count("\n") == 1
    assert "runs on" in cell.printed
    before = started.job.folder.metrics()[-1]["step"]
    eventually(lambda: started.job.folder.metrics()[-1]["step"] > before, 30)


def test_jobs_status_and_logs_show_the_running_job(kernel: Kernel, started: Started) -> None:
    jobs = kernel.run("%byzerllm jobs")
    assert any(">watched</td>" in text and ">running</td>" in text for text in jobs.shown("text/html"))
    status = kernel.run("%byzerllm status")
    assert any("watched (running)" in text for text in status.shown("text/plain"))
    logs = kernel.run("%byzerllm logs watched")
    assert "── rank-1.log" in logs.printed
    assert {jobs.status, status.status, logs.status} == {"ok"}


@pytest.mark.parametrize(
    "code",
    [
        '%%byzerllm run\npretrainedModelType="sfft/llama" and localModelDri="x"',
        "%%byzerllm run\npretrainedModelType=",
        "%byzerllm attach nothing-of-that-name",
        "%byzerllm atach watched",
        "%llm_chat -m nobody hello",
        "%llm_chat",
    ],
)
def test_an_error_is_a_few_lines_without_a_traceback(kernel: Kernel, setup: Cell, code: str) -> None:
    cell = kernel.run(code)
    assert cell.status == "error"
    lines = "\n".join(cell.traceback).splitlines()
    assert 1 <= len(lines) <= MAX_LINES
    assert "Traceback" not in "".join(lines) + cell.printed


def test_an_interrupted_chat_keeps_the_partial_answer(kernel: Kernel, setup: Cell, reciter: str) -> None:
    models = kernel.run("%byzerllm models")
    assert any(reciter in text and "RUNNING" in text for text in models.shown("text/html"))
    code = f"%llm_chat -m {reciter} --temperature 0 -o said Recite."
    cell = kernel.run(code, interrupt_when=lambda cell: len(cell.pieces) >= 5)
    assert cell.status == "ok", cell.traceback
    assert not cell.shown(WIDGET_VIEW), "the live view gave way to its twin"
    (markdown,) = cell.shown("text/markdown")
    assert "".join(cell.pieces[:5])[:50] in markdown
    assert "stopped" in markdown
    kept = kernel.run("print(len(said))").printed
    assert len("".join(cell.pieces[:5])) <= int(kept) < 4000, "it ended early, and kept what had come"


def test_after_a_restart_attach_shows_the_whole_curve(kernel: Kernel, started: Started) -> None:
    kernel.restart()
    assert kernel.run("%load_ext byzerllm_magics").status == "ok"
    cell = kernel.run("%byzerllm attach watched -o again")
    assert cell.status == "ok", cell.traceback
    assert cell.shown(WIDGET_VIEW)
    first_loss = f"{started.job.folder.metrics()[0]['loss']:.4g}"
    assert any(f"loss       {first_loss} " in text for text in cell.shown("text/plain"))
    steps = kernel.run("steps = list(again.metrics().step); print(steps == list(range(1, len(steps) + 1)))")
    assert steps.printed == "True\n"


def test_a_fresh_process_sees_every_step(started: Started) -> None:
    code = "from byzerllm_magics.session import Session; print(len(Session().job('watched').metrics()))"
    before = started.job.folder.metrics()[-1]["step"]
    assert int(python(code, dict(os.environ)).stdout) >= before


def test_a_worker_that_dies_is_told_by_the_card_and_not_in_a_cell(kernel: Kernel, started: Started) -> None:
    eventually(lambda: "checkpoint" in event_names(started.job), 60)
    psutil.Process(worker_pid("W-1-watched")).kill()
    told = "next((e for e in again.folder.events() if e['event'] == 'restarting'), None)"
    cell = kernel.run(f"import time\nwhile not {told}: time.sleep(0.1)\ntime.sleep(3)")
    assert cell.status == "ok", cell.traceback
    assert not cell.printed
    assert started.job.state == "restarting" or "worker 1 died" in str(started.job.folder.events())


def test_ten_notebooks_watch_one_job(started: Started) -> None:
    """Each sees it live from its first step, and none of them keeps it from training."""
    kernels = [Kernel(wait=False) for _ in range(10)]
    try:
        for kernel in kernels:
            kernel.wait()
            cell = kernel.run("%load_ext byzerllm_magics\n%byzerllm attach watched -o it")
            assert cell.shown(WIDGET_VIEW), cell.traceback
        before = started.job.folder.metrics()[-1]["step"]
        look = "from byzerllm_magics.live import WATCHER\n[view] = WATCHER._views\nprint(view._watch.state.step)"
        eventually(lambda: all(int(kernel.run(look).printed) > before for kernel in kernels), 60)
        steps = kernels[-1].run("steps = list(it.metrics().step); print(steps == list(range(1, len(steps) + 1)))")
        assert steps.printed == "True\n"
    finally:
        for kernel in kernels:
            kernel.close()


def test_stopping_saves_a_checkpoint_and_ends_the_job(kernel: Kernel, started: Started) -> None:
    stopped = kernel.run("%byzerllm stop watched")
    assert stopped.status == "ok", stopped.traceback
    waited = kernel.run("%byzerllm wait watched")
    assert waited.status == "ok", waited.traceback
    assert "Job watched stopped" in waited.printed
    job = started.job
    assert event_names(job)[-2:] == ["checkpoint", "stopped"]
    last = job.folder.metrics()[-1]["step"]
    assert (job.folder.checkpoints / f"step-{last}" / "manifest.json").is_file()
    assert not job.folder.model.exists()
    again = kernel.run("%byzerllm attach watched")
    assert again.shown("image/png")
    assert not again.shown(WIDGET_VIEW)
    assert any(f"step {last:,} of 100,000" in text for text in again.shown("text/plain"))


def test_interrupting_a_deployment_that_waits_for_room_withdraws_it(
    kernel: Kernel, setup: Cell, reciter: str, tiny_model: Path
) -> None:
    kernel.run("%%byzerllm setup\nnum_cpus=2")  # all of the test cluster's
    begun = time.monotonic()
    code = f'%%byzerllm run\naction="infer" and localModelDir="{tiny_model}" and udfName="greedy"'
    cell = kernel.run(code, interrupt_when=lambda _: time.monotonic() - begun > 3)
    kernel.run("%%byzerllm setup\nsfft\nnum_gpus=2\nowner=tester")
    assert cell.status == "error"
    assert "'greedy' is not deployed" in "\n".join(cell.traceback)
    eventually(lambda: "greedy" not in str(kernel.run("%byzerllm models").displays), 30)
