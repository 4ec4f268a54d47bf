"""The plain Python calls: what becomes of their arguments."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import read
from byzerllm_trainers import deepspeed_train
from byzerllm_trainers.deepspeed_train import TrainArgs, as_table, sfft_train, sft_train
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest
from byzerllm_trainers.train_parameters import TrainParameters


def test_train_args_say_the_same_in_the_languages_keys(tmp_path: Path) -> None:
    args = TrainArgs(
        model_path="m",
        tokenizer_path="t",
        data_dir="d",
        checkpoint_saving_path="c",
        steps_per_epoch=7,
        max_length=64,
        epoches=3,
        name="n",
    )
    train = read(TrainParameters, args.as_parameters())
    assert (train.local_model_dir, train.local_data_dir, train.local_path_prefix, train.name) == ("m", "d", "c", "n")
    sfft = train.sfft
    assert (sfft.tokenizer_path, sfft.steps_per_epoch, sfft.max_length, sfft.epoches) == ("t", 7, 64, 3)


def test_a_model_that_a_function_builds_needs_only_its_tokenizers_folder() -> None:
    train = read(TrainParameters, TrainArgs(tokenizer_path="t", data_dir="d").as_parameters())
    assert (train.local_model_dir, train.sfft.tokenizer_path) == ("t", "t")
    assert train.sfft.steps_per_epoch is None


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"text": ["a", "b"]}),
        pd.DataFrame({"text": ["x", "a", "b"]})[1:],  # its index begins at 1
        pa.table({"text": ["a", "b"]}),
        [pd.DataFrame({"text": ["a"]}), pa.table({"text": ["b"]})],
    ],
    ids=["pandas", "slice", "arrow", "list"],
)
def test_tables_of_all_kinds_become_one_arrow_table(data: Any) -> None:
    assert as_table(data).to_pydict() == {"text": ["a", "b"]}


@pytest.mark.parametrize("data", [7, "text", {"text": ["a"]}])
def test_anything_else_is_not_a_table(data: Any) -> None:
    with pytest.raises(ByzerError, match=f"a {type(data).__name__} is not a table"):
        as_table(data)


def test_tables_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ByzerError, match="do not fit together") as caught:
        as_table([pa.table({"text": ["a"]}), pa.table({"text": [1]})])
    assert len(caught.value.render()) <= 5


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the calls hand to `submit`, which only makes a folder here; nobody waits."""
    seen: dict[str, Any] = {"waited": False}

    def submit(parameters: Any, **details: Any) -> JobFolder:
        seen.update(details, parameters=dict(parameters))
        folder = JobFolder(tmp_path / "job")
        folder.create(JobRequest(dict(parameters), "me", 1, False, 1, 1).as_record())
        return folder

    monkeypatch.setattr(deepspeed_train, "submit", submit)
    monkeypatch.setattr(deepspeed_train, "wait", lambda _folder: seen.update(waited=True))
    return seen


def test_a_call_trains_in_the_foreground_with_the_settings_of_its_session(submitted: dict[str, Any]) -> None:
    frame = pd.DataFrame({"instruction": ["a"], "output": ["b"]})
    conf = {"OWNER": "me", "num_gpus": "2", "num_cpus": "1.5", "resource.worker_type": "3"}
    [row] = sft_train([frame], {"localModelDir": "m"}, conf)
    assert (row["name"], row["status"]) == ("job", "running")
    assert submitted["parameters"] == {"pretrainedModelType": "sft/auto", "localModelDir": "m"}
    assert (submitted["owner"], submitted["workers"], submitted["num_cpus"]) == ("me", 2, 1.5)
    assert submitted["resources"] == {"worker_type": 3.0}
    assert (submitted["table"].num_rows, submitted["partitions"]) == (1, [1])
    assert submitted["waited"]


def test_a_detached_call_returns_at_once(submitted: dict[str, Any]) -> None:
    sfft_train([], {"localModelDir": "m", "detached": "true"}, sys_conf={"num_gpus": 0})
    assert not submitted["waited"]
    assert (submitted["workers"], submitted["table"]) == (1, None)


def test_a_call_refuses_the_other_methods_type(submitted: dict[str, Any]) -> None:
    with pytest.raises(ByzerError, match="is not for sfft_train"):
        sfft_train([], {"pretrainedModelType": "sft/llama"})
    assert "parameters" not in submitted


def test_importing_the_trainers_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = "import sys, json, byzerllm_trainers, byzerllm_trainers.job_folder, byzerllm_trainers.follow\n"
    code += "print(json.dumps([m for m in ('torch', 'ray', 'transformers', 'deepspeed', 'numpy', 'pydantic', 'pyarrow')"
    code += " if m in sys.modules]))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []
