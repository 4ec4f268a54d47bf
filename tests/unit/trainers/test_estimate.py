"""An estimate says what the job would do, before it does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import data_sample, recipe
from byzerllm_trainers.checkpoint import save_checkpoint
from byzerllm_trainers.estimate import Estimate, checkpoint_bytes, estimate
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest
from byzerllm_trainers.machine import Gpu, Machine, this_machine
from byzerllm_trainers.memory_need import Estimator
from tests.tiny import instructions, texts

GIB = 2**30
ROOM = [Machine(64 * GIB)]


def table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


@pytest.fixture
def of(tiny_model: Path) -> Any:
    """Estimates a job of the tiny model."""

    def of(method: str, machines: Sequence[Machine] = ROOM, workers: int = 1, **keys: Any) -> Estimate:
        parameters = {"pretrainedModelType": f"{method}/llama", "localModelDir": str(tiny_model)}
        parameters |= {key if key == "deepspeedConfig" else f"{method}.{key}": value for key, value in keys.items()}
        rows = table(instructions(64) if method == "sft" else texts(400))
        return estimate(parameters, machines, workers=workers, table=rows)

    return of


@pytest.mark.parametrize(("method", "keys"), [("sft", {"lora_rank": 4}), ("sft", {}), ("sfft", {})])
def test_parameters_are_the_real_models(of: Any, make_job: Any, method: str, keys: dict[str, Any]) -> None:
    rows = table(instructions(8) if method == "sft" else texts(8))
    model = recipe.find(method).model(make_job(method, rows, **keys))
    counted = of(method, **keys).model
    assert counted.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted.trained + counted.frozen == sum(p.numel() for p in model.parameters())


def test_a_tied_head_counts_once(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = {"vocab_size": 100, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = LlamaConfig(num_attention_heads=2, tie_word_embeddings=True, **sizes)
    real = AutoModelForCausalLM.from_config(config)
    estimator = Estimator(lambda: AutoModelForCausalLM.from_config(config), world=1, gpu=False)
    from tests.unit.trainers.helpers import settings

    assert estimator.model(settings("sfft")).trained == sum(p.numel() for p in real.parameters())


@pytest.mark.parametrize(
    ("method", "workers", "keys"),
    [
        ("sft", 1, {"per_device_train_batch_size": 3, "num_train_epochs": 2.5}),
        ("sft", 2, {"gradient_accumulation_steps": 2, "eval_ratio": 0.25}),
        ("sfft", 2, {"max_length": 48, "epoches": 2}),
        ("sfft", 1, {"max_length": 48, "steps_per_epoch": 3}),
        ("sft", 1, {"max_steps": 7}),
    ],
)
def test_steps_and_tokens_are_the_jobs(of: Any, make_job: Any, method: str, workers: int, keys: dict[str, Any]) -> None:
    rows = table(instructions(64) if method == "sft" else texts(400))
    job, method_ = make_job(method, rows, workers, **keys), recipe.find(method)
    method_.prepare(job)
    plan = method_.plan(job)
    found = of(method, workers=workers, **keys).data
    assert found.share == 1.0
    assert found.total_steps == recipe.total_steps(method_, job, plan)
    assert found.tokens == sum(plan.counts(index)[1] for index in range(plan.steps_per_epoch))


def test_of_large_data_a_sample_is_extrapolated_and_rows_may_be_as_long_as_allowed(
    of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = of("sft", max_seq_length=200).data
    monkeypatch.setattr(data_sample, "ENOUGH", table(instructions(64)).nbytes // 2)
    sampled = of("sft", max_seq_length=200).data
    assert sampled.share == pytest.approx(0.5, abs=0.05)
    assert sampled.tokens == pytest.approx(exact.tokens, rel=0.3)
    assert sampled.total_steps == pytest.approx(exact.total_steps, abs=1)
    assert sampled.shape.width == 199


def test_a_folder_is_sampled_like_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        instructions(16).to_json(tmp_path / f"{number}.jsonl", orient="records", lines=True)
    assert data_sample.sample(str(tmp_path), None) == (None, 1.0)
    monkeypatch.setattr(data_sample, "ENOUGH", 2000)
    rows, share = data_sample.sample(str(tmp_path), None)
    assert rows is not None
    assert rows.num_rows / share == pytest.approx(128, rel=0.2)


def test_a_job_that_will_not_fit_says_what_takes_less(of: Any) -> None:
    keys = {"per_device_train_batch_size": 32, "max_length": 256}
    found = of("sfft", [Machine(520 * 2**20)], deepspeedConfig={"zero_optimization": {"stage": 0}}, **keys)
    assert not found.fits
    named = [change.keys for change in found.changes]
    assert 'sfft.per_device_train_batch_size="1" and sfft.gradient_accumulation_steps="32"' in named
    assert 'sfft.gradient_checkpointing="true"' in named
    assert named[-1] == "all of it together"
    assert all(change.total < found.need.total for change in found.changes)
    assert of("sfft", **keys).fits
    assert of("sfft", **keys).changes == []


def test_cpu_workers_of_a_node_share_its_memory(of: Any) -> None:
    assert of("sfft", [Machine(8 * GIB)], workers=2).room.memory == 4 * GIB
    assert of("sfft", [Machine(8 * GIB)] * 2, workers=2).room.memory == 8 * GIB
    assert of("sft", [Machine(8 * GIB)] * 2, workers=2).room.memory == 4 * GIB


def test_time_comes_from_a_job_that_computes_alike(of: Any, tiny_model: Path, tmp_path: Path) -> None:
    keys = {"pretrainedModelType": "sft/llama", "localModelDir": str(tiny_model), "sft.lora_rank": 4}
    done = JobFolder(tmp_path / "before")
    done.create(JobRequest(keys, "me", 1, False, 1, 1).as_record())
    steps = [{"attempt": 1, "step": step, "tokens_per_second": speed} for step, speed in enumerate([1, 1, 1, 50, 50])]
    done.append("metrics.jsonl", steps)
    rows = table(instructions(64))
    same = estimate(keys, ROOM, table=rows, earlier=[done])
    assert same.seconds == pytest.approx(same.data.total_tokens / 50)
    assert "job before" in same.seconds_from
    other = estimate(keys | {"sft.lora_rank": 8}, ROOM, table=rows, earlier=[done])
    assert other.seconds is None


def test_on_a_known_gpu_time_comes_from_its_peak_and_it_computes_in_bf16(of: Any) -> None:
    found = of("sft", [Machine(64 * GIB, (Gpu("NVIDIA H200", 141 * GIB),))])
    assert found.seconds is not None
    assert "40% (assumed)" in found.seconds_from
    assert (found.room.device, found.model.width) == ("NVIDIA H200", 2)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_checkpoint_is_as_large_as_it_says(
    group: None, of: Any, tiny_model: Path, folder: JobFolder, stage: int
) -> None:
    import torch

    from byzerllm_trainers.engine import start_engine
    from tests.unit.trainers.helpers import load, settings

    chosen = settings("sfft", {"zero_optimization": {"stage": stage}})
    engine = start_engine(load(tiny_model), chosen, folder)
    engine.backward(engine(input_ids=torch.zeros(1, 8, dtype=torch.long)).logits.float().sum())
    engine.step()
    save_checkpoint(engine, folder, 1, 0, keep=1)
    written = sum(path.stat().st_size for path in folder.checkpoints.rglob("*.pt") if "random" not in path.name)
    found = of("sfft", bf16=False, deepspeedConfig={"zero_optimization": {"stage": stage}})
    assert checkpoint_bytes(found.model, chosen) == found.checkpoint
    assert written == pytest.approx(found.checkpoint, rel=0.15)


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"learning_ratee": 1}, "learning_ratee"),
        ({"fp16": True}, "fp16 needs a GPU"),
        ({"deepspeedConfig": {"zero_optimisation": {}}}, "DeepSpeed knows no key"),
    ],
)
def test_what_would_keep_the_job_from_running_is_the_same_error(of: Any, keys: dict[str, Any], what: str) -> None:
    with pytest.raises(ByzerError, match=what):
        of("sft", **keys)


def test_this_machine_has_memory() -> None:
    assert this_machine().memory > 2**28
