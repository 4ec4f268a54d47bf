"""What is wrong is found before anything exists; a job folder holds what a worker needs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import gang, submit
from byzerllm_trainers.corpus import READ_AT_ONCE, partitions
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import read_request
from byzerllm_trainers.recipe import Job
from byzerllm_trainers.sft import SupervisedFineTuning
from tests.tiny import instructions, texts

NODE = {"Alive": True, "Resources": {"CPU": 4.0}}
GPU_NODE = {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 4.0}}
DEAD = {"Alive": False, "Resources": {"CPU": 400.0, "GPU": 80.0}}


class Cluster:
    """What `submit` asks Ray, without Ray."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import ray

        self.nodes, self.actors, self.started = [NODE], set[str](), list[str]()
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        monkeypatch.setattr(ray, "nodes", lambda: self.nodes)
        monkeypatch.setattr(ray, "get_actor", self._actor)
        monkeypatch.setattr(gang, "start_coordinator", self.started.append)

    def _actor(self, name: str, _namespace: str) -> None:
        if name not in self.actors:
            raise ValueError(name)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


@pytest.fixture
def keys(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "pretrainedModelType": "sft/llama",
        "localModelDir": str(tiny_model),
        "localPathPrefix": str(tmp_path / "jobs"),
        "name": "job",
    }


def rows(**columns: list[Any]) -> pa.Table:
    return pa.table(columns or {"instruction": ["Hello?", "How?"], "output": ["Hello.", "So."]})


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


TABLES: list[tuple[str, dict[str, list[Any]], str]] = [
    ("sft", {"question": ["a"], "answer": ["b"]}, "no data format has the columns question, answer"),
    ("sft", {"instruction": ["a", "b", "c"], "output": ["A", None, "C"]}, "row 1 (format alpaca)"),
    ("sft", {"messages": [[{"role": "user", "content": "a"}], [{"role": "robot", "content": "b"}]]}, "row 1"),
    ("sft", {"text": ["a"]}, "a row of plain text holds no conversation"),
    ("sft", {"instruction": [], "output": []}, "the table has no rows"),
    ("dpo", {"prompt": ["a", "b"], "chosen": ["A", "B"], "rejected": ["C", "B"]}, "row 1"),
    ("dpo", {"instruction": ["a"], "output": ["A"]}, "preferences need a column chosen and a column rejected"),
    ("sfft", {"content": ["a"]}, 'needs a column "text"; this table has: content'),
    ("sfft", {"text": []}, "the table has no rows"),
]


@pytest.mark.parametrize(("method", "columns", "what"), TABLES)
def test_a_table_that_cannot_train_leaves_nothing_behind(
    cluster: Cluster, keys: dict[str, Any], method: str, columns: dict[str, list[Any]], what: str
) -> None:
    with pytest.raises(ByzerError) as caught:
        submit.submit(keys | {"pretrainedModelType": f"{method}/llama"}, owner="me", table=rows(**columns))
    assert what in str(caught.value)
    assert not Path(keys["localPathPrefix"]).exists()


def test_the_format_is_said_when_the_job_is_submitted(
    cluster: Cluster, keys: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    submit.submit(keys, owner="me", table=rows())
    assert "Data format: alpaca" in capsys.readouterr().out


def test_rows_that_are_to_be_dropped_do_not_keep_a_job_from_starting(cluster: Cluster, keys: dict[str, Any]) -> None:
    keys |= {"sft.on_bad_row": "drop"}
    submit.submit(keys, owner="me", table=rows(instruction=["a", "b"], output=[None, "B"]))
    with pytest.raises(ByzerError, match="none of 2 rows fits; the first: output is missing") as caught:
        submit.submit(keys | {"name": "b"}, owner="me", table=rows(instruction=["a", "b"], output=[None, ""]))
    assert caught.value.where == 'in "inputTable", row 0 (format alpaca)'
    assert len(cluster.started) == 1


def test_so_are_pairs(cluster: Cluster, keys: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    keys = {key: value for key, value in keys.items() if not key.startswith("sft.")}
    keys |= {"pretrainedModelType": "dpo/llama", "dpo.on_bad_row": "drop"}
    pairs = rows(prompt=["a", "b"], chosen=["A", "B"], rejected=[None, "C"])
    submit.submit(keys, owner="me", table=pairs)
    assert "Data format: preferences" in capsys.readouterr().out
    with pytest.raises(ByzerError, match="none of 1 rows fits; the first: rejected is missing") as caught:
        submit.submit(keys | {"name": "b"}, owner="me", table=pairs.slice(0, 1))
    assert caught.value.where == 'in "inputTable", row 0 (format preferences)'
    assert len(cluster.started) == 1


def test_a_folder_that_mixes_formats_names_two_of_its_files(
    cluster: Cluster, keys: dict[str, Any], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (data / "b.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(ByzerError, match="mixes formats: alpaca and messages") as caught:
        submit.submit(keys | {"localDataDir": str(data)}, owner="me")
    assert caught.value.where == f"{data / 'a.jsonl'}\n{data / 'b.jsonl'}"
    assert len(caught.value.render()) <= 5
    assert not Path(keys["localPathPrefix"]).exists()


class Dataset:
    """A Ray Dataset as far as `submit` uses it; it counts the batches that were asked for."""

    def __init__(self, *batches: pa.Table, pandas: bool = False) -> None:
        self.batches, self.pandas, self.read = batches, pandas, 0

    def columns(self) -> list[str]:
        return list(self.batches[0].column_names)

    def schema(self) -> Any:
        return type("Schema", (), {"base_schema": None if self.pandas else self.batches[0].schema})()

    def materialize(self) -> None:
        raise AssertionError("all rows in memory")

    def iter_batches(self, *, batch_size: int, batch_format: str) -> Any:
        assert (batch_size, batch_format) == (READ_AT_ONCE, "pyarrow")
        for batch in self.batches:
            self.read += 1
            yield batch


@pytest.mark.parametrize("pandas", [False, True])
def test_a_ray_dataset_is_written_batch_by_batch(cluster: Cluster, keys: dict[str, Any], pandas: bool) -> None:
    from byzerllm_trainers.corpus import rows as kept

    data = Dataset(rows(), rows(instruction=["x"], output=["X"]), pandas=pandas)
    folder = submit.submit(keys, owner="me", table=data)
    assert data.read == 2 + pandas
    assert [row.values["output"] for row in kept(folder, None)] == ["Hello.", "So.", "X"]  # type: ignore[index,call-overload]
    assert SupervisedFineTuning().prepare(Job(folder, read_request(folder)))["examples"] == 3


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (Dataset(rows(question=["a"])), "no data format has the columns question"),
        (Dataset(rows(instruction=["a"], output=["b"]), rows(instruction=["a"], output=[None])), "output is missing"),
        (Dataset(rows(instruction=["a"], output=["b"]), rows(instruction=["a"], output=[[1]])), "batches .* differ"),
        (Dataset(rows(instruction=[], output=[])), "the table has no rows"),
    ],
)
def test_a_ray_dataset_that_cannot_train_leaves_nothing_behind(
    cluster: Cluster, keys: dict[str, Any], data: Dataset, what: str
) -> None:
    with pytest.raises(ByzerError, match=what) as caught:
        submit.submit(keys, owner="me", table=data)
    assert "inputTable" in caught.value.where
    assert not (Path(keys["localPathPrefix"]) / "job").exists()
    assert cluster.started == []
    with pytest.raises(ByzerError, match="reads a Ray Dataset"):
        submit.submit(keys | {"keepPartitionNum": "true"}, owner="me", table=Dataset(rows()))


@pytest.mark.parametrize(("path", "what"), [("nowhere", "no folder or file"), ("", "holds no tokenizer")])
def test_a_path_without_a_tokenizer_leaves_nothing_behind(
    cluster: Cluster, keys: dict[str, Any], tmp_path: Path, path: str, what: str
) -> None:
    (tmp_path / "empty").mkdir()
    keys |= {"pretrainedModelType": "sfft/llama", "sfft.str.tokenizer_path": str(tmp_path / "empty" / path)}
    with pytest.raises(ByzerError, match=what):
        submit.submit(keys, owner="me", table=rows(text=["a"]))
    assert not Path(keys["localPathPrefix"]).exists()


def test_a_folder_of_empty_files_leaves_nothing_behind(cluster: Cluster, keys: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("")
    with pytest.raises(ByzerError, match="is empty"):
        submit.submit(keys | {"localDataDir": str(tmp_path / "data")}, owner="me")
    assert not Path(keys["localPathPrefix"]).exists()


def test_a_table_to_evaluate_on_is_kept_and_tokenised_apart(cluster: Cluster, keys: dict[str, Any]) -> None:
    held_out = rows(instruction=["x"], output=["X"])
    folder = submit.submit(keys | {"evalTable": "held"}, owner="me", table=rows(), eval_table=held_out)
    counts = SupervisedFineTuning().prepare(Job(folder, read_request(folder)))
    assert (counts["examples"], counts["held_out"]) == (2, 1)
    with pytest.raises(ByzerError, match="no data format has the columns question") as caught:
        submit.submit(
            keys | {"evalTable": "held", "name": "b"}, owner="me", table=rows(), eval_table=rows(question=["a"])
        )
    assert "evalTable" in str(caught.value)


def test_the_partitions_that_workers_keep_come_along(cluster: Cluster, keys: dict[str, Any]) -> None:
    kept = submit.submit(keys | {"keepPartitionNum": "true"}, owner="me", table=rows(), partitions=[2, 0])
    shared = submit.submit(keys | {"name": "other"}, owner="me", table=rows(), partitions=[2, 0])
    assert (partitions(kept), partitions(shared)) == ([0, 2, 2], None)


@pytest.mark.parametrize(
    ("table", "what", "do"),
    [
        (rows(), "2 workers, and the table has 1 partition:", 'partitionNum="2"'),
        (None, "keeps the partitions of a table", "give it as inputTable"),
    ],
)
def test_partitions_that_cannot_be_kept_are_an_error(
    cluster: Cluster, keys: dict[str, Any], tmp_path: Path, table: pa.Table | None, what: str, do: str
) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("text")
    keys |= {"keepPartitionNum": "true", "pretrainedModelType": "sfft/llama" if table is None else "sft/llama"}
    keys |= {} if table else {"localDataDir": str(tmp_path / "text")}
    with pytest.raises(ByzerError) as caught:
        submit.submit(keys, owner="me", workers=2, table=table)
    assert what in caught.value.what
    assert do in caught.value.do
    assert len(caught.value.render()) <= 5
    assert cluster.started == []


def test_without_any_data_nothing_is_left_behind(cluster: Cluster, keys: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data in ({}, {"localDataDir": str(tmp_path / "missing")}, {"localDataDir": str(tmp_path / "empty")}):
        with pytest.raises(ByzerError):
            submit.submit(keys | data, owner="me")
    assert not Path(keys["localPathPrefix"]).exists()


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

    monkeypatch.setattr(gang, "start_coordinator", fail)
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
    placed = submit._placement(workers, None, {}, one_node=False)
    assert placed == {"workers": workers, "resources": {}, **expected}


@pytest.mark.parametrize(
    ("nodes", "one_node", "place"),
    [([GPU_NODE, GPU_NODE], True, "4 fit on one node"), ([GPU_NODE, GPU_NODE], False, "8 fit on the cluster")],
)
def test_more_workers_than_ever_fit_are_refused(cluster: Cluster, nodes: list[Any], one_node: bool, place: str) -> None:
    cluster.nodes = [*nodes, DEAD]
    with pytest.raises(ByzerError, match=f"9 workers asked, {place}") as caught:
        submit._placement(9, None, {}, one_node=one_node)
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
