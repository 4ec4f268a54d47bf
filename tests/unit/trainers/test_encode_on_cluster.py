"""What a process of the cluster does with its parts; that the cluster does it is shown in tests/cluster."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_adapters import registry
from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import corpus, encode_on_cluster, recipe
from byzerllm_trainers.dpo import Preferred
from byzerllm_trainers.encode_on_cluster import encode_into
from byzerllm_trainers.sft import Conversations
from byzerllm_trainers.shards import FILES, open_shards, shard_writer
from tests.tiny import instructions, preferences


def in_parts(
    job: Any, tiny_model: Path, scratch: Path, *, drop: bool, encoder: Any = Conversations, format: str = "alpaca"
) -> list[ByzerError | None]:
    """What the cluster's processes answer for each part of a job's table, the last part first."""
    parts = corpus.parts(job.folder, None)
    tokenizer = registry.find("llama").load_tokenizer(str(tiny_model))
    shared = [encoder(tokenizer, format, 60)]
    errors = [encode_into(shared, part, scratch / str(number), drop) for number, part in list(enumerate(parts))[::-1]]
    return errors[::-1]


def together(parts: Path, count: int, folder: Path, bounds: list[int] | None = None) -> None:
    with shard_writer(folder) as writer:
        for number in range(count):
            writer.append(open_shards(parts / str(number)))
        writer.partitions = bounds and writer.left(bounds)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "PART_ROWS", 64)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.setattr(encode_on_cluster, "_fetched", lambda shared: shared)  # there is no cluster to fetch it from


@pytest.mark.parametrize("bad", [(), (90, 170)])
def test_parts_one_after_the_other_are_the_whole_and_an_error_comes_back(
    make_job: Any, tiny_model: Path, tmp_path: Path, bad: tuple[int, ...]
) -> None:
    rows = instructions(200)
    whole = make_job("sft", pa.Table.from_pandas(rows), max_seq_length=60)
    recipe.find("sft").prepare(whole)
    rows.loc[list(bad), "output"] = " "
    job = make_job("sft", pa.Table.from_pandas(rows))
    results = in_parts(job, tiny_model, tmp_path / "parts", drop=False)
    assert [error and error.where for error in results] == (
        [None, "row 90 (format alpaca)", "row 170 (format alpaca)", None] if bad else [None] * 4
    )
    if not bad:
        together(tmp_path / "parts", 4, tmp_path / "together")
        for name in FILES:
            assert (tmp_path / "together" / name).read_bytes() == (whole.folder.shards / name).read_bytes()


def test_rows_that_parts_drop_are_dropped_from_the_whole(make_job: Any, tiny_model: Path, tmp_path: Path) -> None:
    rows = instructions(200)
    rows.loc[[3, *range(64, 128), 199], "output"] = " "  # all of the second part
    job = make_job("sft", pa.Table.from_pandas(rows), workers=2, max_seq_length=60, on_bad_row="drop")
    corpus.keep_partitions(job.folder, [50, 50, 100])
    assert recipe.find("sft").prepare(job)["rows_dropped"] == 66
    results = in_parts(job, tiny_model, tmp_path / "parts", drop=True)
    assert results == [None] * 4
    together(tmp_path / "parts", 4, tmp_path / "together", [0, 50, 100, 200])
    for name in FILES:
        assert (tmp_path / "together" / name).read_bytes() == (job.folder.shards / name).read_bytes()
    one, other = open_shards(tmp_path / "together"), open_shards(job.folder.shards)
    assert one.partitions == other.partitions == [0, 49, 63, 134]
    assert one.dropped.tolist() == [3, *range(64, 128), 199]
    assert str(one.why) == str(other.why) == "output is empty"


def test_both_sides_of_a_preference_are_dropped_in_any_part(make_job: Any, tiny_model: Path, tmp_path: Path) -> None:
    rows = preferences(200)
    rows.loc[[3, *range(64, 128), 199], "rejected"] = " "
    job = make_job("dpo", pa.Table.from_pandas(rows), workers=2, max_seq_length=60, on_bad_row="drop")
    corpus.keep_partitions(job.folder, [50, 50, 100])
    counts = recipe.find("dpo").prepare(job)
    assert (counts["pairs"], counts["rows_dropped"]) == (134, 66)
    assert counts["first_dropped"] == "row 3 (format preferences): rejected is empty"
    in_parts(job, tiny_model, tmp_path / "parts", drop=True, encoder=Preferred, format="preferences")
    together(tmp_path / "parts", 4, tmp_path / "together", [0, 100, 200, 400])
    for name in FILES:
        assert (tmp_path / "together" / name).read_bytes() == (job.folder.shards / name).read_bytes()
    one, other = open_shards(tmp_path / "together"), open_shards(job.folder.shards)
    assert one.partitions == other.partitions == [0, 98, 126, 268]
    assert one.dropped.tolist() == [6, 7, *range(128, 256), 398, 399]
