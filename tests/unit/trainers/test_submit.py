"""What is wrong is found before anything exists; a job folder holds what a worker needs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import coordinator, submit
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import read_request
from byzerllm_trainers.placement import placement
from byzerllm_trainers.recipe import Job
from byzerllm_trainers.sft import SupervisedFineTuning
from tests.tiny import instructions, texts
from tests.unit.trainers.submitting import DEAD, GPU_NODE, NODE, Cluster, rows


def test_a_job_is_written_and_its_coordinator_started(cluster: Cluster, keys: dict[str, Any]) -> None:
    folder = submit.submit(keys, owner="me", table=rows())
    assert cluster.started == [str(folder.root)]
    request = read_request(folder)
    assert (request.owner, request.workers, request.gpu, request.cpus_per_worker) == ("me", 1, False, 1.0)
    assert request.train.family == "llama"
    assert SupervisedFineTuning().prepare(Job(folder, request))["examples"] == 2


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"localModelDir": "nowhere"}, 'no folder "nowhere"', "paths are relative to"),
    ({"localModelDir": None}, "localModelDir is missing", "add localModelDir"),
    ({"pretrainedModelType": "sft/lama"}, "lama", "llama"),
    ({"pretrainedModelType": "lora/llama"}, "does not say how to train", 'write "sft/llama"'),
    ({"name": "../escape"}, "is not a name for a job", "use letters"),
    ({"sft.learning_rte": "1"}, "sft.learning_rte is not a known parameter", "sft.learning_rate"),
    ({"sft.learning_rate": "fast"}, "is not a number", "write a number"),
    ({"sfft.max_length": "8"}, "without effect in sft/llama", "sft."),
    ({"dpo.beta": "0.2"}, "without effect in sft/llama", "sft."),
    ({"deepspeedConfig": '{"zero_optimisation": {}}'}, "knows no key", "zero_optimization"),
    ({"deepspeedConfig": '{"zero'}, "is not JSON", "correct the JSON"),
    ({"sft.fp16": "true"}, "fp16 needs a GPU", 'write bf16="true"'),
    ({"sft.optim": "adamw_bnb_8bit"}, "optim=adamw_bnb_8bit needs a GPU", "adamw_torch"),
    ({"sft.resume_from_checkpoint": "nowhere"}, "there is no whole checkpoint at nowhere", "a job's folder"),
    ({"evalTable": "held"}, "names a table that did not come with the job", "eval_ratio"),
    ({"sft.eval_steps": "3"}, "there is no data to evaluate on", "evalTable"),
    ({"sft.target_modules": "q_prj"}, 'the model has no layer "q_prj"', "did you mean q_proj"),
    ({"sft.finetuning_type": "full", "sft.r": "8"}, "lora_rank is without effect", "leave it out"),
    ({"deepspeedConfig": '{"train_batch_size": 5}'}, "train_batch_size is 5, but 8 rows", "leave it out"),
    (
        {"pretrainedModelType": "dpo/llama", "dpo.target_modules": "q_prj"},
        'dpo.target_modules: the model has no layer "q_prj"',
        "did you mean q_proj",
    ),
    ({"pretrainedModelType": "dpo/llama", "dpo.finetuning_type": "full"}, "as the reference", 'write "lora"'),
    (
        {"deepspeedConfig": '{"zero_optimization": {"stage": 3}}', "sft.finetuning_type": "qlora"},
        "stage 3 do not go together",
        '"stage": 2',
    ),
]


@pytest.mark.parametrize(("changes", "what", "do"), WRONG, ids=[str(case[0]) for case in WRONG])
def test_wrong_keys_leave_nothing_behind(
    cluster: Cluster, keys: dict[str, Any], changes: dict[str, Any], what: str, do: str
) -> None:
    raw = {key: value for key, value in (keys | changes).items() if value is not None}
    with pytest.raises(ByzerError) as caught:
        submit.submit(raw, owner="me", table=rows())
    assert what in str(caught.value)
    assert do in str(caught.value)
    assert len(caught.value.render()) <= 5
    assert not Path(keys["localPathPrefix"]).exists()
    assert cluster.started == []


@pytest.mark.parametrize(
    ("method", "changes", "what", "do"),
    [
        ("sft", {}, "a config.json and no weights", "copy the *.safetensors"),
        ("sfft", {}, "a config.json and no weights", 'sfft.bool.from_scratch="true"'),
        ("sfft", {"sfft.bool.from_scratch": "true"}, "", ""),
    ],
)
def test_a_folder_without_weights_is_an_error_unless_new_ones_are_asked_for(
    cluster: Cluster, keys: dict[str, Any], tmp_path: Path, method: str, changes: dict[str, str], what: str, do: str
) -> None:
    shutil.copytree(keys["localModelDir"], bare := tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    raw = keys | {"pretrainedModelType": f"{method}/llama", "localModelDir": str(bare)} | changes
    table = rows() if method == "sft" else rows(text=["a", "b"])
    if not what:
        assert submit.submit(raw, owner="me", table=table).exists()
        return
    with pytest.raises(ByzerError) as caught:
        submit.submit(raw, owner="me", table=table)
    assert what in caught.value.what
    assert do in caught.value.do
    assert ("from_scratch" in caught.value.do) == (method == "sfft")
    assert cluster.started == []


def test_an_adapter_on_an_adapter_is_refused_since_its_base_is_another(
    cluster: Cluster, keys: dict[str, Any], tmp_path: Path
) -> None:
    """peft would record the first one's base for the second, and leave the first out."""
    (adapter := tmp_path / "adapter").mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    raw = keys | {"localModelDir": str(adapter)}
    with pytest.raises(ByzerError, match="localModelDir is an adapter") as caught:
        submit.submit(raw, owner="me", table=rows())
    assert "resume_from_checkpoint" in caught.value.do
    assert submit.submit(raw | {"sft.finetuning_type": "full"}, owner="me", table=rows()).exists()
    with pytest.raises(ByzerError, match="localModelDir is an adapter") as caught:
        submit.submit(raw | {"pretrainedModelType": "dpo/llama"}, owner="me", table=rows())
    assert 'action="merge"' in caught.value.do
    scratch = {"pretrainedModelType": "sfft/llama", "sfft.from_scratch": "true", "name": "other"}
    with pytest.raises(ByzerError, match="from_scratch needs a config"):
        submit.submit(raw | scratch, owner="me", table=rows(text=["a"]))


def test_a_consistent_batch_size_of_deepspeeds_is_taken(cluster: Cluster, keys: dict[str, Any]) -> None:
    raw = keys | {"deepspeedConfig": '{"train_batch_size": 16}'}
    assert submit.submit(raw, owner="me", workers=2, table=rows()).exists()


def test_a_running_job_of_that_name_is_refused(cluster: Cluster, keys: dict[str, Any]) -> None:
    cluster.actors.add("job")
    with pytest.raises(ByzerError, match="is running on this cluster"):
        submit.submit(keys, owner="me", table=rows())
    assert not Path(keys["localPathPrefix"]).exists()


def test_an_earlier_job_of_that_name_is_refused_and_kept(cluster: Cluster, keys: dict[str, Any]) -> None:
    first = submit.submit(keys, owner="me", table=rows())
    with pytest.raises(ByzerError, match="exists already"):
        submit.submit(keys, owner="me", table=rows())
    assert first.exists()
    assert len(cluster.started) == 1


def test_a_coordinator_that_does_not_start_leaves_no_folder(
    cluster: Cluster, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_root: str) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(coordinator, "start_coordinator", fail)
    with pytest.raises(RuntimeError):
        submit.submit(keys, owner="me", table=rows())
    assert not (Path(keys["localPathPrefix"]) / "job").exists()


def test_without_a_connection_it_says_so_and_starts_no_cluster(keys: dict[str, Any]) -> None:
    import ray

    with pytest.raises(ByzerError, match="not connected to a Ray cluster"):
        submit.submit(keys, owner="me", table=rows())
    assert not ray.is_initialized()


def test_paths_are_those_of_the_notebook_not_of_a_worker(
    cluster: Cluster, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model.parent)
    data = tiny_model.parent / "data"
    data.mkdir(exist_ok=True)
    (data / "a.txt").write_text("text")
    name = tiny_model.name
    raw = {
        "pretrainedModelType": "sfft/llama",
        "localModelDir": name,
        "localDataDir": "data",
        "localPathPrefix": str(tmp_path),
        "sfft.str.tokenizer_path": name,
    }
    train = read_request(submit.submit(raw, owner="me")).train
    assert (train.local_model_dir, train.local_data_dir) == (str(tiny_model), str(data))
    assert train.sfft.tokenizer_path == str(tiny_model)


@pytest.mark.parametrize("spelling", ["pythons", "groups", "typed"])
def test_every_spelling_of_the_keys_reaches_the_workers(cluster: Cluster, keys: dict[str, Any], spelling: str) -> None:
    raw = {
        "pythons": {
            "pretrained_model_type": "sft/llama",
            "local_model_dir": keys["localModelDir"],
            "local_path_prefix": keys["localPathPrefix"],
            "sft.max_steps": np.int64(7).item(),
        },
        "groups": keys | {"sft": {"max_steps": 7}},
        "typed": keys | {"sft.int.max_steps": "7", "deepspeedConfig": {"gradient_clipping": 0.5}},
    }[spelling]
    folder = submit.submit(raw, owner="me", table=rows())
    request = read_request(folder)
    assert request.loop.max_steps == 7
    assert request.loop.clip == (0.5 if spelling == "typed" else 1.0)
    assert folder.request()["parameters"]["pretrainedModelType"] == "sft/llama"


def test_a_generated_name_is_a_name_whoever_the_owner_is(cluster: Cluster, keys: dict[str, Any]) -> None:
    del keys["name"]
    folder = submit.submit(keys, owner="team a/张三", table=rows())
    assert folder.root.parent == Path(keys["localPathPrefix"])
    assert folder.name.startswith("sft-team-a-")


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([NODE], 1, {"gpu": False, "cpus_per_worker": 1.0, "threads_per_worker": 4}),
        ([NODE], 4, {"gpu": False, "cpus_per_worker": 0.75, "threads_per_worker": 1}),  # leaves one CPU
        ([NODE, NODE], 4, {"gpu": False, "cpus_per_worker": 1.0, "threads_per_worker": 2}),
        ([GPU_NODE], 4, {"gpu": True, "cpus_per_worker": 1.0, "threads_per_worker": 1}),
    ],
)
def test_workers_are_placed_so_that_they_fit(
    cluster: Cluster, nodes: list[Any], workers: int, expected: dict[str, Any]
) -> None:
    cluster.nodes = [*nodes, DEAD]
    placed = placement(workers, None, {}, one_node=False)
    assert placed == {"workers": workers, "resources": {}, **expected}


@pytest.mark.parametrize(
    ("nodes", "one_node", "place"),
    [([GPU_NODE, GPU_NODE], True, "4 fit on one node"), ([GPU_NODE, GPU_NODE], False, "8 fit on the cluster")],
)
def test_more_workers_than_ever_fit_are_refused(cluster: Cluster, nodes: list[Any], one_node: bool, place: str) -> None:
    cluster.nodes = [*nodes, DEAD]
    with pytest.raises(ByzerError, match=f"9 workers asked, {place}") as caught:
        placement(9, None, {}, one_node=one_node)
    assert "32 CPU, 8 GPU on 2 nodes" in caught.value.where


def test_a_table_travels_with_its_job(cluster: Cluster, keys: dict[str, Any]) -> None:
    from byzerllm_trainers.corpus import rows as kept

    table = pa.Table.from_pandas(instructions(10))
    folder = submit.submit(keys, owner="me", table=table)
    assert [row.values for row in kept(folder, None)] == table.to_pylist()


def test_a_function_of_the_notebook_travels_with_its_job(
    cluster: Cluster, keys: dict[str, Any], tiny_model: Path
) -> None:
    from byzerllm_trainers.pretrain import Pretraining

    width = 32

    def get_model() -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 1, "num_attention_heads": 2}
        return LlamaForCausalLM(LlamaConfig(vocab_size=384, **sizes))

    raw = keys | {"pretrainedModelType": "sfft/auto", "sfft.tokenizer_path": str(tiny_model)}
    folder: JobFolder = submit.submit(raw, owner="me", table=pa.Table.from_pandas(texts(4)), get_model=get_model)
    assert Pretraining().model(Job(folder, read_request(folder))).config.hidden_size == 32
    assert json.loads((folder.root / "job.json").read_text())["driven"] is False
