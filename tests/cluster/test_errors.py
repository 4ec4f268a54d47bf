"""What goes wrong is told in five lines, and leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from byzerllm_adapters.errors import MAX_LINES, ByzerError
from tests.cluster.helpers import actor_lives, live_groups, pretraining
from tests.tiny import instructions

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture
def refused(session: Any, tiny_model: Path, corpus: Path, tmp_path: Path) -> Callable[..., ByzerError]:
    """Try a job with some keys changed (None drops one); check that nothing is left of it, and return its error."""

    def attempt(table: pd.DataFrame | None = None, workers: int = 2, **changes: str | None) -> ByzerError:
        parameters = {**pretraining(tiny_model, corpus, tmp_path, name="refused", stage=2), **changes}
        if table is not None:
            session.tables["refused_rows"] = table
        session.configure(settings={"num_gpus": workers})
        try:
            with pytest.raises(ByzerError) as caught:
                session.run({key: value for key, value in parameters.items() if value is not None})
        finally:
            session.configure(settings={"num_gpus": 2})
        assert not list(tmp_path.iterdir())
        assert not actor_lives("refused")
        assert len(caught.value.render()) <= MAX_LINES
        return caught.value

    return attempt


def test_more_workers_than_the_cluster_can_place(refused: Callable[..., ByzerError]) -> None:
    error = refused(workers=64)
    assert "64 workers" in error.what
    assert "CPU" in error.where
    assert "num_gpus" in error.do
    assert not live_groups()


def test_an_unknown_key(refused: Callable[..., ByzerError]) -> None:
    error = refused(**{"sfft.int.max_lenght": "64"})
    assert "max_lenght" in str(error)
    assert "max_length" in str(error)


def test_a_missing_model_folder(refused: Callable[..., ByzerError]) -> None:
    assert "nowhere" in str(refused(localModelDir="nowhere/model"))


def test_a_table_that_does_not_exist(refused: Callable[..., ByzerError]) -> None:
    error = refused(localDataDir=None, inputTable="refused_rowz")
    assert "refused_rowz" in error.what


def test_a_row_that_does_not_fit(refused: Callable[..., ByzerError]) -> None:
    rows = instructions(8)
    rows.loc[5, "output"] = None
    keys = pretraining(Path(), Path(), Path(), name="", stage=2)
    dropped = {key: None for key in keys if key.startswith("sfft.") or key in ("deepspeedConfig", "localDataDir")}
    error = refused(table=rows, pretrainedModelType="sft/llama", inputTable="refused_rows", **dropped)
    assert "row 5" in error.where


def test_a_model_with_a_missing_tensor_is_named_and_leaves_no_application(
    session: Any, tiny_model: Path, tmp_path: Path
) -> None:
    from ray import serve
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    lost = "model.layers.1.mlp.up_proj.weight"
    del tensors[lost]
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ByzerError) as caught:
        session.run(action="infer", localModelDir=str(broken), udfName="broken")
    assert lost in str(caught.value)
    assert len(caught.value.render()) <= MAX_LINES
    assert "tester/broken" not in serve.status().applications
    assert "broken" not in [model.name for model in session.models()]


def test_a_model_without_room_says_what_holds_it_and_leaves_nothing(
    session: Any, reciter: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ray import serve

    from byzerllm_magics.session import Session

    greedy = Session()
    greedy.setup(owner="tester", num_cpus=2)  # all of the test cluster's
    with pytest.raises(ByzerError) as caught:
        greedy.run(action="infer", localModelDir=str(tiny_model), udfName="greedy", modelWaitServerReadyTimeout=12)
    told = capsys.readouterr().out
    assert "waiting for room: a replica takes 2 CPU" in told
    assert reciter in told
    assert "within 12 s" in caught.value.what
    assert reciter in caught.value.where
    assert "tester/greedy" not in serve.status().applications
