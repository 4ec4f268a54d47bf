"""What a user is told of the data: what of it is not learned, and what is longer than the model can look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_adapters.parameters import read
from byzerllm_trainers import recipe
from byzerllm_trainers.context_length import beyond_context
from byzerllm_trainers.coordinator import notes_of
from byzerllm_trainers.train_parameters import TrainParameters
from tests.tiny import instructions


def test_rows_that_are_cut_are_counted_and_told(make_job: Any) -> None:
    rows = instructions(20)
    rows.loc[10:, "output"] = "word " * 200
    counts = recipe.find("sft").prepare(make_job("sft", pa.Table.from_pandas(rows), max_seq_length=100))
    assert (counts["examples"], counts["examples_cut_off"]) == (20, 10)
    assert notes_of(counts) == ["10 examples cut at max_seq_length: what was cut off, end included, is not learned"]


def test_rows_that_are_dropped_are_told_with_the_first_ones_reason(make_job: Any) -> None:
    rows = instructions(20)
    rows.loc[[3, 9], "output"] = " "
    counts = recipe.find("sft").prepare(make_job("sft", pa.Table.from_pandas(rows), on_bad_row="drop"))
    assert notes_of(counts) == ["2 rows dropped; the first: row 3 (format alpaca): output is empty"]


def test_nothing_is_told_of_data_that_is_learned_whole(make_job: Any) -> None:
    assert notes_of(recipe.find("sft").prepare(make_job("sft", pa.Table.from_pandas(instructions(20))))) == []


def test_rows_longer_than_the_models_context_are_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 256}))
    assert beyond_context(str(tmp_path), 256) == {}
    found = beyond_context(str(tmp_path), 430)
    assert notes_of(found) == ["rows have up to 430 tokens, and the model's context only 256"]
    assert beyond_context(None, 430) == {}


@pytest.mark.parametrize(
    ("written", "prompts"),
    [
        ('["Who?", "Where, then?"]', ["Who?", "Where, then?"]),
        ("Hello there, you", ["Hello there, you"]),
        (["One"], ["One"]),
    ],
)
def test_prompts_to_sample_are_a_json_list_or_one_prompt(written: object, prompts: list[str]) -> None:
    keys = {"pretrainedModelType": "sft/llama", "localModelDir": "m", "sft.sample_prompts": written}
    assert read(TrainParameters, keys).sft.sample_prompts == prompts
