"""A job's files in parts: each is read by itself, and together they are all rows in order."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import parts
from byzerllm_trainers.parts import Part, as_rows, column, cut, read


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
    return [row["text"] for batch in read(part) for row in as_rows(batch)]


def test_parts_are_all_rows_in_order_and_none_is_empty(files: list[Path]) -> None:
    found = cut(files)
    assert [text for part in found for text in texts_of(part)] == TEXTS
    assert [part.rows for part in found] == [2, 3, 3, 2, 4, 2, 1]
    assert [part.first for part in found] == [0, 2, 5, 8, 10, 14, 16]


def test_a_part_is_read_without_those_before_it(files: list[Path]) -> None:
    for part in reversed(cut(files)):
        assert texts_of(part) == TEXTS[part.first : part.first + part.rows]


def test_only_the_columns_that_are_asked_for_are_read(files: list[Path]) -> None:
    part = cut(files)[4]
    batches = list(read(part, ["text", "other"]))
    assert [batch.schema.names for batch in batches] == [["text"], ["text"]]
    assert [batch.schema.names for batch in read(part, ["other"])] == [["text", "n"]] * 2
    assert column(batches[0], "text") == ["u", "v"]
    assert column(batches[0], "other") == [None, None]


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
    with pytest.raises(ByzerError, match="has to be a JSON object") as caught:
        list(read(cut([tmp_path / "a.jsonl"])[1]))
    assert caught.value.where == f"{tmp_path / 'a.jsonl'}, line 6"
