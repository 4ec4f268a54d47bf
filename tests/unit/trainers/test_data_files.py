import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rows import detect_format
from byzerllm_trainers.data_files import data_files, format_of_files
from byzerllm_trainers.parts import file_rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "f").mkdir(parents=True)
    return folder


def test_files_of_all_kinds_are_read_in_the_order_of_their_names(data: Path) -> None:
    (data / "a.txt").write_text("one document\nof two lines", encoding="utf-8")
    (data / "b.jsonl").write_text('{"text": "b1"}\n\n{"text": "第二"}\n', encoding="utf-8")
    (data / "c.csv").write_text('text,n\n"c1\nand, more",1\n007,\n', encoding="utf-8")
    (data / "d.json").write_text('[{"text": "d1"},\n {"text": "d2"}]', encoding="utf-8")
    (data / "e.json").write_text('{"text": "e1"}\n{"text": "e2"}', encoding="utf-8")
    pq.write_table(pa.table({"text": ["f1", "f2"]}), data / "f" / "{f}.parquet")
    (data / "notes.md").write_text("not data")
    found = [row for path in data_files(str(data)) for row in file_rows(path)]
    assert [row.values["text"] for row in found] == [  # type: ignore[index,call-overload]
        *("one document\nof two lines", "b1", "第二", "c1\nand, more", "007", "d1", "d2", "e1", "e2", "f1", "f2")
    ]
    assert [Path(row.place).relative_to(data).as_posix() for row in found] == [
        *("a.txt", "b.jsonl, line 1", "b.jsonl, line 3", "c.csv, row 0", "c.csv, row 1"),
        *("d.json, row 0", "d.json, row 1", "e.json, line 1", "e.json, line 2"),
        *("f/{f}.parquet, row 0", "f/{f}.parquet, row 1"),
    ]
    assert found[4].values == {"text": "007", "n": None}, "cells are texts, empty ones are missing"


@pytest.mark.parametrize(("line", "what"), [('{"text": ', "not JSON"), ('["text"]', "has to be a JSON object")])
def test_a_bad_line_is_named_with_its_file_and_number(data: Path, line: str, what: str) -> None:
    path = data / "a.jsonl"
    path.write_text(json.dumps({"text": "fine"}) + "\n" + line + "\n")
    _, bad = file_rows(path)
    assert bad.place == f"{path}, line 2"
    assert what in str(bad.values)


def test_text_that_is_not_utf8_is_named_with_its_file(data: Path) -> None:
    for name, content in (
        ("a.txt", "你好".encode("gbk")),
        ("b.jsonl", b'{"text": "\xff\xfe"}\n'),
        ("c.json", b'["\xff\xfe"]'),
        ("d.csv", b"text\n\xff\xfe\n"),
    ):
        (data / name).write_bytes(content)
        with pytest.raises(ByzerError, match="is not UTF-8") as caught:
            list(file_rows(data / name))
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.parquet", "text", "not a parquet file"),
        ("a.json", '[{"text": ', "not JSON"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "not a table of CSV: CSV parse error: .*Expected 2 columns, got 3"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(data: Path, name: str, content: str, what: str) -> None:
    (data / name).write_text(content)
    with pytest.raises(ByzerError, match=what) as caught:
        list(file_rows(data / name))
    assert name in caught.value.where


def test_a_missing_or_empty_folder_is_refused(data: Path) -> None:
    for path, what in ((None, "no data"), (str(data / "x"), "no folder"), (str(data), "no .txt, .jsonl, .json, ")):
        with pytest.raises(ByzerError, match=what):
            data_files(path)


def test_all_files_of_a_folder_are_of_one_format(data: Path) -> None:
    (data / "a.jsonl").write_text('\n{"oops"\n{"instruction": "a", "output": "b"}\n')  # the first row does not fit
    (data / "b.csv").write_text("instruction,output,history\na,b,\n")
    (data / "c.jsonl").write_text("\n")  # empty
    assert format_of_files(str(data), detect_format) == "alpaca"
    (data / "d.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(ByzerError, match="mixes formats: alpaca and prompt-completion") as caught:
        format_of_files(str(data), detect_format)
    assert caught.value.where == f"{data / 'a.jsonl'}\n{data / 'd.jsonl'}"


def test_a_folder_without_rows_of_a_format_is_refused(data: Path) -> None:
    (data / "a.jsonl").write_text("\n")
    with pytest.raises(ByzerError, match="have no rows"):
        format_of_files(str(data), detect_format)
    (data / "b.jsonl").write_text('{"question": "a"}\n')
    with pytest.raises(ByzerError, match="no data format has the columns question") as caught:
        format_of_files(str(data), detect_format)
    assert caught.value.where == f"{data / 'b.jsonl'}, line 1"
