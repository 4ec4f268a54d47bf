"""%%byzerllm estimate: the cell of a run, and nothing starts."""

from pathlib import Path
from typing import Any

import pytest

from byzerllm_magics.cluster import connection, jobs, machines
from byzerllm_trainers import machine
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest
from byzerllm_trainers.machine import Machine
from tests.tiny import instructions

pytestmark = pytest.mark.slow

CELL = 'pretrainedModelType="sft/llama"\nlocalModelDir="{model}"\ninputTable="rows"\n'


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("nothing connects")

    monkeypatch.setattr(connection, "connect", refused)
    monkeypatch.setattr(connection, "runs", lambda _address: False)
    here = Machine(2**34, cpu_flops={4: 1e11, 2: 3e11})
    monkeypatch.setattr(machine, "this_machine", lambda: here)


@pytest.fixture
def cell(shell: Any, tiny_model: Path) -> str:
    shell.user_ns["rows"] = instructions(16)
    return CELL.format(model=tiny_model)


def test_a_cell_is_estimated_without_a_cluster(run: Any, shell: Any, cell: str) -> None:
    ran = run(f"%%byzerllm estimate -o found\n{cell}")
    assert ran.error is None, ran.text
    text = repr(ran.value)
    assert text.startswith("Fits: a worker needs ")
    assert "this machine alone: no cluster is running" in text
    assert all(name in text for name in ("parameters", "weights", "optimizer", "logits", "process", "steps", "disk"))
    assert "40% (assumed)" in text
    assert shell.user_ns["found"] is ran.value
    assert ran.value.estimate.data.total_steps == 2


def test_its_html_says_the_same_in_the_pages_own_colours(run: Any, cell: str) -> None:
    markup = run(f"%%byzerllm estimate\n{cell}").value._repr_html_()
    assert "<b>Fits:" in markup
    assert "color:" not in markup
    assert "<script" not in markup


def test_what_will_not_fit_says_so_and_what_takes_less(run: Any, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "machines", lambda _address: ([Machine(2**20)], "a toy"))
    text = repr(run(f"%%byzerllm estimate\n{cell}").value)
    assert text.startswith("Will not fit: a worker needs ")
    assert '→ sft.per_device_train_batch_size="1"' in text
    assert "more or larger devices" in text


def test_there_is_advice_also_where_nothing_that_is_tried_takes_less(
    run: Any, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "machines", lambda _address: ([Machine(2**20)], "a toy"))
    small = 'sft.per_device_train_batch_size="1"\nsft.gradient_checkpointing="true"\n'
    text = repr(run(f"%%byzerllm estimate\n{cell}{small}").value)
    assert "What takes less:\n  → " in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('sft.lora_rankk="8"', "sft.lora_rank"),
        *((f'action="{action}"', "only training is estimated") for action in ("infer", "merge", "convert", "evaluate")),
    ],
)
def test_errors_are_those_of_a_run(run: Any, cell: str, line: str, message: str) -> None:
    ran = run(f"%%byzerllm estimate\n{cell}{line}\n")
    assert message in ran.text
    assert len(ran.lines) <= 5


def test_a_line_names_a_job(run: Any, shell: Any, cell: str, tmp_path: Path, tiny_model: Path) -> None:
    import pyarrow as pa

    from byzerllm_trainers.corpus import keep_rows

    folder = JobFolder(tmp_path / "jobs" / "sft-demo")
    keys = {"pretrainedModelType": "sft/llama", "localModelDir": str(tiny_model), "inputTable": "rows"}
    folder.create(JobRequest(keys, "me", 2, False, 1, 1).as_record())
    keep_rows(folder, pa.Table.from_pandas(instructions(16)))
    jobs.remember(folder)
    ran = run("%byzerllm estimate sft-demo")
    assert ran.error is None, ran.text
    assert (ran.value.estimate.workers, ran.value.estimate.data.total_steps) == (2, 1)


def test_a_job_that_keeps_its_partitions_is_estimated_with_them(run: Any, tmp_path: Path, tiny_model: Path) -> None:
    import pyarrow as pa

    from byzerllm_trainers.corpus import keep_partitions, keep_rows

    folder = JobFolder(tmp_path / "jobs" / "sft-parts")
    keys = {"pretrainedModelType": "sft/llama", "localModelDir": str(tiny_model), "inputTable": "rows"}
    folder.create(JobRequest({**keys, "keepPartitionNum": "true"}, "me", 2, False, 1, 1).as_record())
    keep_rows(folder, pa.Table.from_pandas(instructions(20)))
    keep_partitions(folder, [16, 4])
    jobs.remember(folder)
    ran = run("%byzerllm estimate sft-parts")
    assert ran.error is None, ran.text
    assert ran.value.estimate.data.epoch_steps == 2, "the longest share decides"


def test_it_needs_a_cell_or_a_job(run: Any) -> None:
    assert "needs a cell or the name of a job" in run("%byzerllm estimate").text
