"""Data that cannot train is refused before anything exists; what can travels with its job."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import submit
from byzerllm_trainers.corpus import READ_AT_ONCE, partitions
from byzerllm_trainers.job_request import read_request
from byzerllm_trainers.recipe import Job
from byzerllm_trainers.sft import SupervisedFineTuning
from tests.unit.trainers.submitting import Cluster, rows

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
TABLES: list[tuple[str, dict[str, list[Any]], str]] = [
    ("sft", {"question": ["a"], "answer": ["b"]}, "no data format has the columns question, answer"),
    ("sft", {"instruction": ["a", "b", "c"], "output": ["A", None, "C"]}, "row 1 (format alpaca)"),
    ("sft", {"messages": [TURNS, [{"role": "robot", "content": "b"}]]}, "row 1"),
    ("sft", {"text": ["a"]}, "a row of plain text holds no conversation"),
    ("sft", {"instruction": [], "output": []}, "the table has no rows"),
    ("dpo", {"prompt": ["a", "b"], "chosen": ["A", "B"], "rejected": ["C", "B"]}, "row 1"),
    ("dpo", {"instruction": ["a"], "output": ["A"]}, "preferences need a column chosen and a column rejected"),
    ("sfft", {"content": ["a"]}, 'needs a column "text"; this table has: content'),
    ("sfft", {"text": []}, "the table has no rows"),
    ("sfft", {"text": ["a", "", None]}, "text is missing"),
    ("sft", {"messages": [[{"role": "user", "content": "a"}]] * 2}, "to learn from; so 2 of 2 rows do not fit"),
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
