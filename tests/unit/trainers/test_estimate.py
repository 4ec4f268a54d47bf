"""An estimate says what the job would do, before it does."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import read
from byzerllm_trainers import data_sample, memory, recipe
from byzerllm_trainers.estimate import Estimate, checkpoint_bytes, estimate
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest
from byzerllm_trainers.machine import Gpu, Machine, this_machine
from byzerllm_trainers.memory_need import Estimator
from byzerllm_trainers.saving import Saver
from byzerllm_trainers.train_parameters import TrainParameters
from tests.tiny import instructions, make_model, preferences, texts

pytestmark = pytest.mark.slow

GIB = 2**30
ROOM = [Machine(64 * GIB)]


def table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def rows_for(method: str, count: int) -> pa.Table:
    """Rows that the method takes."""
    return table({"sft": instructions, "sfft": texts, "dpo": preferences}[method](count))


@pytest.fixture
def of(tiny_model: Path) -> Any:
    """Estimates a job of the tiny model."""

    def of(method: str, machines: Sequence[Machine] = ROOM, workers: int = 1, **keys: Any) -> Estimate:
        parameters = {"pretrainedModelType": f"{method}/llama", "localModelDir": str(tiny_model)}
        cell = ("deepspeedConfig", "localDataDir", "localModelDir")
        parameters |= {key if key in cell else f"{method}.{key}": value for key, value in keys.items()}
        rows = None if "localDataDir" in keys else rows_for(method, 400 if method == "sfft" else 64)
        return estimate(parameters, machines, workers=workers, table=rows)

    return of


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("sft", {"lora_rank": 4}),
        ("sft", {}),
        ("sft", {"finetuning_type": "dora"}),
        ("sft", {"finetuning_type": "full"}),
        ("sft", {"target_modules": "q_proj,v_proj", "modules_to_save": "lm_head"}),
        ("sft", {"packing": True}),
        ("sfft", {}),
        ("sfft", {"from_scratch": True}),
        ("dpo", {"lora_rank": 4}),
    ],
)
def test_parameters_are_the_real_models(of: Any, make_job: Any, method: str, keys: dict[str, Any]) -> None:
    rows = rows_for(method, 8)
    model = recipe.find(method).model(make_job(method, rows, **keys))
    counted = of(method, **keys).model
    assert counted.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted.trained + counted.frozen == sum(p.numel() for p in model.parameters())


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A model whose weights bitsandbytes packs: its blocks are of 64 numbers."""
    return make_model(tmp_path / "wide", hidden=64)


def test_qlora_has_its_linear_weights_in_four_bits(of: Any, wide: Path, make_job: Any, monkeypatch: Any) -> None:
    from bitsandbytes.nn import Linear4bit

    rows = table(instructions(8))
    parameters = make_job("sft", rows, finetuning_type="qlora", bf16=False, lora_rank=4)
    monkeypatch.setitem(parameters.request.parameters, "localModelDir", str(wide))
    real = recipe.find("sft").model(parameters)
    packed = [module for module in real.modules() if isinstance(module, Linear4bit)]
    found, plain = (
        of("sft", localModelDir=str(wide), finetuning_type=kind, bf16=False, lora_rank=4) for kind in ("qlora", "lora")
    )
    assert found.model.packed == sum(module.in_features * module.out_features for module in packed)
    assert found.model.trained == plain.model.trained == sum(p.numel() for p in real.parameters() if p.requires_grad)
    in_memory = sum(p.numel() * p.element_size() for p in real.parameters())
    scales = found.model.packed / 64
    assert found.need.peak.weights == pytest.approx(in_memory + scales, rel=0.01)
    assert found.need.peak.weights < plain.need.peak.weights / 2
    assert found.need.peak.activations == pytest.approx(plain.need.peak.activations, rel=0.01)


def test_new_weights_need_no_old_ones_and_new_tokens_count(of: Any, tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(tiny_model / "config.json", folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([f"<new{number}>" for number in range(500)])
    tokenizer.save_pretrained(folder)
    new = of("sfft", localModelDir=str(folder), from_scratch=True).model
    assert new.trained == of("sfft").model.trained
    larger = of("sfft", localModelDir=str(folder), from_scratch=True, resize_vocab=True).model
    assert larger.trained > new.trained
    for file in tiny_model.glob("*.safetensors"):
        shutil.copy(file, folder)
    assert (
        of("sft", localModelDir=str(folder), finetuning_type="full", resize_vocab=True).model.trained == larger.trained
    )


def test_packed_rows_are_as_long_as_they_may_be(of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = of("sft", packing=True, max_seq_length=128)
    assert found.data.shape.packed
    assert found.data.epoch_steps < of("sft", max_seq_length=128).data.epoch_steps
    monkeypatch.setattr(data_sample, "ENOUGH", table(instructions(64)).nbytes // 2)
    assert of("sft", packing=True, max_seq_length=128).data.shape.width == 128


def test_a_result_is_an_adapter_or_all_weights(of: Any) -> None:
    adapter, whole = of("sft", bf16=False), of("sft", bf16=False, finetuning_type="full")
    assert adapter.result == 4 * adapter.model.trained
    assert whole.result == 4 * whole.model.trained
    assert whole.model.frozen == 0


def test_gpu_workers_load_in_bf16_whatever_this_machine_has_fast(of: Any) -> None:
    room = [Machine(64 * GIB, (Gpu("NVIDIA H200", 141 * GIB),))]
    assert of("sft", room).model.loaded == pytest.approx(of("sft", room, bf16=True).model.loaded)
    assert of("sft", room).model.loaded < of("sft", room, bf16=False).model.loaded


def test_what_takes_less_is_what_may_be_written(of: Any, wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BUCKET", "PREFETCH", "LIVE"):
        monkeypatch.setattr(memory, name, 1000)  # DeepSpeed's own are larger than this model
    small = [Machine(GIB, (Gpu("toy", 2**20),))]
    found = of("sft", small, localModelDir=str(wide), finetuning_type="qlora")
    assert found.changes
    assert not any('"stage": 3' in change.keys for change in found.changes)
    assert any('"stage": 3' in change.keys for change in of("sfft", small, workers=4).changes)


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
        ("dpo", 2, {"per_device_train_batch_size": 3}),
    ],
)
def test_steps_and_tokens_are_the_jobs(of: Any, make_job: Any, method: str, workers: int, keys: dict[str, Any]) -> None:
    rows = rows_for(method, 400 if method == "sfft" else 64)
    job, method_ = make_job(method, rows, workers, **keys), recipe.find(method)
    method_.prepare(job)
    plan = method_.plan(job)
    found = of(method, workers=workers, **keys).data
    assert found.share == 1.0
    assert found.total_steps == recipe.total_steps(method_, job, plan)
    assert found.tokens == sum(plan.counts(index)[1] for index in range(plan.steps_per_epoch))


def test_a_pair_is_two_rows_of_a_batch_and_its_answers_are_supervised(of: Any) -> None:
    data = of("dpo", per_device_train_batch_size=3).data
    assert data.shape.rows == 6
    assert data.epoch_steps == 22
    assert 128 < data.targets < data.tokens


def test_a_preference_takes_the_time_of_its_reference_too(of: Any) -> None:
    gpu = [Machine(64 * GIB, (Gpu("NVIDIA H200", 141 * GIB),))]
    found = of("dpo", gpu)
    once = found.model.flops.of_step(found.data.tokens, found.data.targets, found.data.width)
    epochs = found.data.total_steps / found.data.epoch_steps
    assert found.seconds > 1.2 * once * epochs / (989e12 * 0.4)


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
    train = read(
        TrainParameters, {"pretrainedModelType": "sft/llama", "localModelDir": "m", "localDataDir": str(tmp_path)}
    )
    assert data_sample.sample(train, None, "instruction") == data_sample.Sample(None, None, 1.0)
    monkeypatch.setattr(data_sample, "ENOUGH", 2000)
    drawn = data_sample.sample(train, None, "instruction")
    assert drawn.rows is not None
    assert len(drawn.rows) / drawn.share == pytest.approx(128, rel=0.2)


MESSAGES = [
    {
        "messages": [
            {"role": "user", "content": f"What is {number}?"},
            {"role": "assistant", "content": "A number. " * (1 + number % 3)},
        ]
    }
    for number in range(300)
]
CONVERSATIONS = [
    {"conversations": [{"from": "human", "value": row["messages"][0]["content"]}, {"from": "gpt", "value": "Yes."}]}
    for row in MESSAGES
]


@pytest.mark.parametrize("rows", [MESSAGES, CONVERSATIONS], ids=["messages", "sharegpt"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("enough", [10**9, 15_000], ids=["all", "some"])
def test_files_of_any_format_are_looked_at(
    of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any], suffix: str, enough: int
) -> None:
    frame, path = pd.DataFrame(rows), tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=suffix == "jsonl")
    monkeypatch.setattr(data_sample, "ENOUGH", enough)
    found = of("sft", localDataDir=str(tmp_path)).data
    assert (found.share == 1.0) == (enough == 10**9)
    assert found.epoch_steps == pytest.approx(300 / 8, rel=0.5)


def test_a_row_that_does_not_fit_is_named_by_its_own_place(
    of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps(row) for row in MESSAGES[:50]]
    lines[7] = json.dumps({"messages": [{"role": "nobody", "content": "?"}]})
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(data_sample, "ENOUGH", 3000)
    with pytest.raises(ByzerError) as raised:
        of("sft", localDataDir=str(tmp_path))
    assert raised.value.where == f"{tmp_path / 'rows.jsonl'}, line 8 (format messages)"
    assert of("sft", localDataDir=str(tmp_path), on_bad_row="drop").data.share < 1


def test_of_a_ray_dataset_the_beginning_is_read(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(instructions(64))

    class Dataset:
        def columns(self) -> list[str]:
            return rows.column_names

        def schema(self) -> Any:
            return SimpleNamespace(base_schema=rows.schema)

        def iter_batches(self, **_: Any) -> Any:
            yield from (rows.slice(begin, 16) for begin in range(0, 64, 16))

        def materialize(self) -> Any:
            raise AssertionError("it is not read whole")

        def count(self) -> int:
            return 64

    keys = {"pretrainedModelType": "sft/llama", "localModelDir": str(tiny_model)}
    assert estimate(keys, ROOM, table=Dataset()).data == estimate(keys, ROOM, table=rows).data
    monkeypatch.setattr(data_sample, "ENOUGH", rows.slice(0, 16).nbytes)
    assert estimate(keys, ROOM, table=Dataset()).data.share == 0.25


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


def test_without_a_gpu_time_comes_from_what_the_cores_were_measured_to_do(of: Any) -> None:
    node = Machine(64 * GIB, cpu_flops={4: 100e9, 2: 300e9})
    once, half = of("sfft", [node], bf16=False), of("sfft", [node], bf16=True)
    assert once.seconds is not None
    assert half.seconds == pytest.approx(once.seconds / 3)
    assert "0.1 measured" in once.seconds_from
    shared = of("sfft", [node], workers=2, bf16=False)
    assert shared.room.flops[4] == 50e9
    alone = of("sfft", [node, node], workers=2, bf16=False)
    assert alone.seconds == pytest.approx(shared.seconds / 2)


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
    saver = Saver(engine, folder, 0, keep=1)
    saver.begin(1, {})
    saver.finish()
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


def test_this_machine_has_memory_and_something_to_compute_with() -> None:
    here = this_machine()
    assert 2**28 < here.memory < 0.95 * psutil.virtual_memory().total, "what is in use cannot be had"
    assert here.gpus or set(here.cpu_flops) == {2, 4}
    assert all(flops > 1e9 for flops in here.cpu_flops.values())
