"""A row that does not fit ends the job with its place, or is dropped and counted."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rows import to_messages
from byzerllm_trainers import recipe
from byzerllm_trainers.bad_rows import BadRows
from byzerllm_trainers.corpus import ROWS_FILE, keep_partitions
from byzerllm_trainers.data_files import Row, file_rows
from byzerllm_trainers.shards import open_shards

GOOD = {"instruction": "a", "output": "b"}
BAD = {"instruction": "a"}


def rows(*values: Any) -> list[Row]:
    return [Row(f"row {number}", value) for number, value in enumerate(values)]


def convert(bad: BadRows, *values: Any) -> list[Any]:
    return list(bad.convert(rows(*values), lambda row: to_messages(row, "alpaca"), "alpaca"))


def test_the_first_is_the_error_with_its_place_and_the_reason() -> None:
    with pytest.raises(ByzerError, match="output is missing") as caught:
        convert(BadRows(drop=False), GOOD, GOOD, BAD, BAD)
    assert caught.value.where == "row 2 (format alpaca)"


def test_dropped_rows_leave_a_gap_and_are_counted_with_the_first_reason() -> None:
    bad = BadRows(drop=True)
    assert bad.counts() == {}
    found = convert(bad, BAD, GOOD, ByzerError("not JSON"), GOOD)
    assert [row is None for row in found] == [True, False, True, False]
    assert bad.counts() == {"rows_dropped": 2, "first_dropped": "row 0 (format alpaca): output is missing"}


def test_where_none_fits_the_first_reason_is_the_error() -> None:
    with pytest.raises(ByzerError, match="none of 2 rows fits; the first: output is missing") as caught:
        convert(BadRows(drop=True), BAD, BAD)
    assert caught.value.where == "row 0 (format alpaca)"


def table(count: int, bad: set[int]) -> pa.Table:
    """Alpaca rows, each with another answer; the bad ones have none."""
    outputs = [None if row in bad else f"answer {row}." for row in range(count)]
    return pa.table({"instruction": ["q"] * count, "output": outputs})


def answers(shards: Any, tokenizer: Any) -> list[str]:
    return [tokenizer.decode(shards.example(i)[0][shards.example(i)[1]]) for i in range(len(shards))]


def test_partitions_keep_their_rows_when_some_are_dropped(make_job: Any) -> None:
    bad = {0, 5, 6, 7, 11}
    job = make_job("sft", table(12, bad), workers=2, on_bad_row="drop")
    keep_partitions(job.folder, [3, 2, 3, 0, 4])  # all rows of the third are bad
    counts = recipe.find("sft").prepare(job)
    shards = open_shards(job.folder.shards)
    left = [row for row in range(12) if row not in bad]
    assert answers(shards, recipe.find("sft").tokenizer(job)) == [f" answer {row}.</s>" for row in left]
    assert shards.partitions == [0, 2, 4, 4, 4, 7]
    assert (counts["examples"], counts["rows_dropped"]) == (7, 5)
    assert counts["first_dropped"] == "row 0 (format alpaca): output is missing"


def test_so_they_do_when_rows_are_held_out_besides(make_job: Any) -> None:
    job = make_job("sft", table(12, {0, 5}), workers=2, on_bad_row="drop", eval_ratio=0.3)
    keep_partitions(job.folder, [6, 6])
    recipe.find("sft").prepare(job)
    tokenizer = recipe.find("sft").tokenizer(job)
    kept, held_out = open_shards(job.folder.shards), open_shards(job.folder.held_out)
    assert (len(kept), len(held_out)) == (7, 3)
    numbers = [int(answer.split()[1].split(".")[0]) for answer in answers(kept, tokenizer)]
    assert kept.partitions == [0, sum(number < 6 for number in numbers), 7]


@pytest.mark.parametrize("method", ["sft", "sfft"])
def test_by_default_a_bad_row_of_a_file_is_named_with_its_line(make_job: Any, tmp_path: Path, method: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    good = '{"instruction": "a", "output": "b"}' if method == "sft" else '{"text": "a"}'
    (data / "a.jsonl").write_text(f"{good}\n\n{{}}\n")
    job = make_job(method, table(1, set()))
    (job.folder.data / ROWS_FILE).unlink()
    job.request.parameters["localDataDir"] = str(data)
    with pytest.raises(ByzerError) as caught:
        recipe.find(method).prepare(job)
    assert caught.value.where.startswith(f"{data / 'a.jsonl'}, line 3 (format ")
    job.request.parameters[f"{method}.on_bad_row"] = "drop"
    assert recipe.find(method).prepare(job)["rows_dropped"] == 1
    assert len(list(file_rows(data / "a.jsonl"))) == 2


def test_what_the_template_refuses_is_dropped_too(make_job: Any) -> None:
    tool = [{"role": "user", "content": "q"}, {"role": "tool", "content": "x"}, {"role": "assistant", "content": "a"}]
    fine = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    job = make_job("sft", pa.table({"messages": [fine, tool]}))
    with pytest.raises(ByzerError, match="template refuses the conversation") as caught:
        recipe.find("sft").prepare(job)
    assert caught.value.where == "row 1 (format messages)"
    job = make_job("sft", pa.table({"messages": [fine, tool]}), on_bad_row="drop")
    assert recipe.find("sft").prepare(job)["rows_dropped"] == 1
