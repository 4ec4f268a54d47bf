"""A job's files in parts: each is read by itself, and together they are all rows in order."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byzerllm_trainers import parts
from byzerllm_trainers.parts import Part, cut, part_rows, place_of, read


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Texts, lines with blanks between them and a table of several row groups; parts are small."""
    monkeypatch.setattr(parts, "PART_ROWS", 3)
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 2)
    (tmp_path / "a.txt").write_text("a\r\ntext")
    (tmp_path / "b.txt").write_text("")
    lines = [json.dumps({"text": f"第{number}"}, ensure_ascii=False) for number in range(8)]
    (tmp_path / "c.jsonl").write_text("\n\n" + "\n \n".join(lines), encoding="utf-8")
    (tmp_path / "d.jsonl").write_text("")
    pq.write_table(pa.table({"text": list("uvwxyz"), "n": range(6)}), tmp_path / "e.parquet", row_group_size=4)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "f.parquet")
    (tmp_path / "g.txt").write_text("g")
    return sorted(tmp_path.iterdir())


TEXTS = ["a\ntext", "", *(f"第{number}" for number in range(8)), *"uvwxyz", "g"]


def texts_of(part: Part) -> list[str]:
    return [row.values["text"] for row in part_rows(part)]  # type: ignore[index,call-overload]


def test_parts_are_all_rows_in_order_and_none_is_empty(files: list[Path]) -> None:
    found = cut(files)
    assert [text for part in found for text in texts_of(part)] == TEXTS
    assert [part.rows for part in found] == [2, 3, 3, 2, 4, 2, 1]
    assert [part.first for part in found] == [0, 1, 8, 14, 0, 4, 0], "as the files count"


def test_a_part_is_read_without_those_before_it(files: list[Path]) -> None:
    end = len(TEXTS)
    for part in reversed(cut(files)):
        assert texts_of(part) == TEXTS[end - part.rows : end]
        end -= part.rows


def test_only_the_columns_that_are_asked_for_are_read(files: list[Path]) -> None:
    part = cut(files)[4]
    batches = list(read(part, ["text", "other"]))
    assert [batch.names(0) for batch in batches] == [["text"], ["text"]]
    assert [batch.names(0) for batch in read(part, ["other"])] == [["text", "n"]] * 2
    assert batches[0].column("text") == ["u", "v"]
    assert batches[0].column("other") == [None, None]


def test_few_bytes_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "BYTES_AT_ONCE", 100)
    texts = [f"{number:060}" for number in range(6)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    pq.write_table(pa.table({"text": texts}), tmp_path / "b.parquet", use_dictionary=False, compression="none")
    for number in range(3):
        (tmp_path / f"c{number}.txt").write_text(texts[number])
    for part in cut(sorted(tmp_path.iterdir())):
        assert max(len(batch) for batch in read(part)) <= 2


def test_an_error_names_the_line_of_the_file_not_of_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 2)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n\n{"a": 3}\n[4]\n')
    _, second = cut([tmp_path / "a.jsonl"])
    [batch] = read(second)
    assert [second.place(number) for number in batch.numbers] == [f"{tmp_path / 'a.jsonl'}, line {n}" for n in (5, 6)]
    assert "has to be a JSON object" in str(batch.rows()[1])
    assert "has to be a JSON object" in str(batch.column("a")[1])
    assert batch.names(0) == ["a"]


def test_a_row_is_named_as_its_file_counts_wherever_its_part_begins(files: list[Path], tmp_path: Path) -> None:
    found = cut(files)
    places = [row.place for part in found for row in part_rows(part)]
    assert places == [
        *(str(tmp_path / name) for name in ("a.txt", "b.txt")),
        *(f"{tmp_path / 'c.jsonl'}, line {line}" for line in range(3, 19, 2)),
        *(f"{tmp_path / 'e.parquet'}, row {row}" for row in range(6)),
        str(tmp_path / "g.txt"),
    ]
    assert [place_of(found, index) for index in range(len(places))] == places
    kept = cut([tmp_path / "e.parquet"], table=" of evalTable")
    assert [row.place for part in kept for row in part_rows(part)][5] == "row 5 of evalTable"


def test_a_list_and_a_table_of_csv_are_read_in_batches_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 2)
    (tmp_path / "a.csv").write_text('text,n\n"a\nb",1\nc,\nd,2\n')
    (tmp_path / "b.json").write_text('[{"text": "x"}, 1, {"text": "y"}]')
    (tmp_path / "c.json").write_text(' {"text": "z"}\n{"text": "z"}\n')
    (tmp_path / "d.csv").write_text("text\n")
    (tmp_path / "e.json").write_text("[]")
    found = cut(sorted(tmp_path.iterdir()))
    assert [(part.kind, part.rows) for part in found] == [("csv", 3), ("list", 3), ("lines", 2)]
    assert [len(batch) for part in found for batch in read(part)] == [2, 1, 2, 1, 2]
    places = [row.place for part in found for row in part_rows(part)]
    assert [Path(place).name for place in places] == [
        *(f"a.csv, row {row}" for row in range(3)),
        *(f"b.json, row {row}" for row in range(3)),
        *(f"c.json, line {line}" for line in (1, 2)),
    ]
    assert [place_of(found, index) for index in range(len(places))] == places
