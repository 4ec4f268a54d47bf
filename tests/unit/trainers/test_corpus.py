import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.corpus import data_files, keep_rows, messages_of, rows
from byzerllm_trainers.job_folder import JobFolder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    return folder


def test_files_of_all_kinds_are_read_in_the_order_of_their_names(folder: JobFolder, data: Path) -> None:
    (data / "a.txt").write_text("one document\nof two lines", encoding="utf-8")
    (data / "b.jsonl").write_text('{"text": "b1"}\n\n{"text": "第二"}\n', encoding="utf-8")
    pq.write_table(pa.table({"text": ["c1", "c2"]}), data / "deep" / "c.parquet")
    (data / "notes.md").write_text("not data")
    found = [row["text"] for row in rows(folder, str(data))]
    assert found == ["one document\nof two lines", "b1", "第二", "c1", "c2"]


def test_the_kept_table_wins_over_a_folder(folder: JobFolder, data: Path) -> None:
    (data / "a.txt").write_text("from the folder")
    keep_rows(folder, pa.Table.from_pandas(pd.DataFrame({"text": ["kept"]})))
    assert [row["text"] for row in rows(folder, str(data))] == ["kept"]


@pytest.mark.parametrize(("line", "what"), [('{"text": ', "not JSON"), ('["text"]', "has to be a JSON object")])
def test_a_bad_line_is_named_with_its_file_and_number(folder: JobFolder, data: Path, line: str, what: str) -> None:
    (data / "a.jsonl").write_text(json.dumps({"text": "fine"}) + "\n" + line + "\n")
    with pytest.raises(ByzerError, match=what) as caught:
        list(rows(folder, str(data)))
    assert caught.value.where == f"{data / 'a.jsonl'}, line 2"


def test_text_that_is_not_utf8_is_named_with_its_file(folder: JobFolder, data: Path) -> None:
    (data / "a.txt").write_bytes("你好".encode("gbk"))
    (data / "b.jsonl").write_bytes(b'{"text": "\xff\xfe"}\n')
    for name in ("a.txt", "b.jsonl"):
        with pytest.raises(ByzerError, match="is not UTF-8") as caught:
            list(rows(folder, str(data)))
        assert name in str(caught.value)
        (data / name).unlink()


def test_a_missing_or_empty_folder_is_refused(data: Path) -> None:
    for path, what in ((None, "no data"), (str(data / "x"), "no folder"), (str(data), "no .txt, .jsonl or .parquet")):
        with pytest.raises(ByzerError, match=what):
            data_files(path)


def test_a_row_that_does_not_fit_is_named_by_its_number() -> None:
    good = {"instruction": "a", "output": "b"}
    with pytest.raises(ByzerError, match="output is missing") as caught:
        list(messages_of(iter([good, good, {"instruction": "a"}]), "alpaca"))
    assert caught.value.where == "row 2 (format alpaca)"
