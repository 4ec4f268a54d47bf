"""A row that does not fit ends the job with its place, or is dropped and counted."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rows import to_messages
from byzerllm_trainers import recipe
from byzerllm_trainers.bad_rows import check_rows
from byzerllm_trainers.corpus import EVAL_ROWS_FILE, ROWS_FILE, keep_partitions, keep_rows
from byzerllm_trainers.parts import Row, file_rows
from byzerllm_trainers.shards import open_shards

GOOD = {"instruction": "a", "output": "b"}
BAD = {"instruction": "a"}


def check(*values: Any, drop: bool) -> None:
    rows = [Row(f"row {number}", value) for number, value in enumerate(values)]
    check_rows(iter(rows), lambda row: to_messages(row, "alpaca"), "alpaca", drop=drop)


def test_the_first_is_the_error_with_its_place_and_the_reason() -> None:
    with pytest.raises(ByzerError, match="output is missing") as caught:
        check(GOOD, GOOD, BAD, BAD, drop=False)
    assert caught.value.where == "row 2 (format alpaca)"


def test_where_they_are_dropped_one_that_fits_is_enough() -> None:
    check(BAD, GOOD, ByzerError("not JSON"), drop=True)
    check(drop=True)


def test_where_none_fits_the_first_reason_is_the_error() -> None:
    with pytest.raises(ByzerError, match="none of 2 rows fits; the first: output is missing") as caught:
        check(BAD, ByzerError("not JSON"), drop=True)
    assert caught.value.where == "row 0 (format alpaca)"
    assert caught.value.do == "correct the row", "they are left out already"


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
    late = [{"role": "user", "content": "q"}, {"role": "system", "content": "x"}, {"role": "assistant", "content": "a"}]
    fine = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    job = make_job("sft", pa.table({"messages": [fine, late]}))
    with pytest.raises(ByzerError, match="template refuses the conversation") as caught:
        recipe.find("sft").prepare(job)
    assert caught.value.where == "row 1 (format messages)"
    job = make_job("sft", pa.table({"messages": [fine, late]}), on_bad_row="drop")
    assert recipe.find("sft").prepare(job)["rows_dropped"] == 1


def reading(job: Any, data: Path) -> Any:
    """The job with ``localDataDir`` in place of its table."""
    (job.folder.data / ROWS_FILE).unlink()
    job.request.parameters["localDataDir"] = str(data)
    return job


@pytest.mark.parametrize(
    ("name", "content", "place", "dropped"),
    [
        ("a.jsonl", '{"instruction": "a", "output": "b"}\n\n{"oops"\n{"instruction": "a"}\n', ", line 3", 2),
        ("a.json", '[{"instruction": "a", "output": "b"}, 1, {"instruction": "a"}]', ", row 1", 2),
        ("a.csv", "instruction,output\na,b\na,\n", ", row 1", 1),
        ("a.parquet", "", ", row 2", 2),
    ],
)
def test_bad_rows_of_files_of_every_kind(
    make_job: Any, tmp_path: Path, name: str, content: str, place: str, dropped: int
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if content:
        (data / name).write_text(content)
    else:
        pq.write_table(table(4, {2, 3}), data / name, row_group_size=2)
    with pytest.raises(ByzerError) as caught:
        recipe.find("sft").prepare(reading(make_job("sft", table(1, set())), data))
    assert caught.value.where == f"{data / name}{place} (format alpaca)"
    counts = recipe.find("sft").prepare(reading(make_job("sft", table(1, set()), on_bad_row="drop"), data))
    assert counts["rows_dropped"] == dropped
    assert counts["first_dropped"].startswith(f"{data / name}{place} (format alpaca): ")


def test_where_none_of_the_rows_fits_the_first_reason_is_the_jobs_error(make_job: Any) -> None:
    for _ in range(2):  # the second finds nothing of the first's
        job = make_job("sft", table(3, {0, 1, 2}), on_bad_row="drop")
        with pytest.raises(ByzerError, match="none of 3 rows fits; the first: output is missing") as caught:
            recipe.find("sft").prepare(job)
        assert caught.value.where == "row 0 (format alpaca)"


def test_rows_to_evaluate_on_are_dropped_and_counted_too(make_job: Any) -> None:
    job = make_job("sft", table(4, {3}), on_bad_row="drop")
    keep_rows(job.folder, table(3, {1}), EVAL_ROWS_FILE)
    counts = recipe.find("sft").prepare(job)
    assert (counts["rows_dropped"], counts["held_out"], counts["examples"]) == (2, 2, 3)
    assert counts["first_dropped"] == "row 1 of evalTable (format alpaca): output is missing"


@pytest.mark.parametrize("keys", [{}, {"eval_ratio": 0.3}])
def test_what_is_found_again_says_what_was_dropped_with_its_own_places(
    make_job: Any, tmp_path: Path, keys: dict[str, Any]
) -> None:
    counts = []
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        lines = ['{"instruction": "a", "output": "b"}', "", "{}", *['{"instruction": "a", "output": "c"}'] * 4]
        (tmp_path / place / "a.jsonl").write_text("\n".join(lines))
        job = reading(make_job("sft", table(1, set()), on_bad_row="drop", **keys), tmp_path / place)
        counts.append(recipe.find("sft").prepare(job))
    where = [f"{tmp_path / place / 'a.jsonl'}, line 3 (format alpaca): " for place in ("one", "other")]
    assert [each["first_dropped"].startswith(place) for each, place in zip(counts, where, strict=True)] == [True] * 2
    assert "reused" in counts[1]
    assert counts[1] | {"reused": "", "first_dropped": ""} == counts[0] | {"reused": "", "first_dropped": ""}
