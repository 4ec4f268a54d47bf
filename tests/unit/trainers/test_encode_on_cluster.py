"""What a process of the cluster does with its parts; that the cluster does it is shown in tests/cluster."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from byzerllm_adapters import registry
from byzerllm_trainers import corpus, recipe
from byzerllm_trainers.encode_on_cluster import _PartEncoder
from byzerllm_trainers.sft import Conversations
from byzerllm_trainers.shards import FILES, open_shards, shard_writer
from tests.tiny import instructions


@pytest.mark.parametrize("bad", [(), (90, 170)])
def test_parts_one_after_the_other_are_the_whole_and_an_error_comes_back(
    make_job: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: tuple[int, ...]
) -> None:
    monkeypatch.setattr(corpus, "PART_ROWS", 64)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    rows = instructions(200)
    whole = make_job("sft", pa.Table.from_pandas(rows), max_seq_length=60)
    recipe.find("sft").prepare(whole)
    rows.loc[list(bad), "output"] = " "
    job = make_job("sft", pa.Table.from_pandas(rows))
    parts = corpus.parts(job.folder, None)
    tokenizer = registry.find("llama").load_tokenizer(str(tiny_model))
    encode = _PartEncoder(Conversations(tokenizer, "alpaca", 60), parts, tmp_path / "parts")
    results = [encode({"part": np.array([number])}) for number in reversed(range(len(parts)))][::-1]
    assert [result["where"] for result in results] == (
        [[""], ["row 90 (format alpaca)"], ["row 170 (format alpaca)"], [""]] if bad else [[""]] * 4
    )
    if not bad:
        with shard_writer(tmp_path / "together") as writer:
            for number in range(len(parts)):
                writer.append(open_shards(tmp_path / "parts" / str(number)))
        for name in FILES:
            assert (tmp_path / "together" / name).read_bytes() == (whole.folder.shards / name).read_bytes()
