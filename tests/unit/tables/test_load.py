"""`load`: what all formats have in common."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byzerllm_magics.tables.load import FORMATS, load
from tests.unit.tables.loopback_s3 import loopback_s3

Write = Callable[[str, str | bytes], str]
Refused = Callable[..., list[str]]


def rows(*arguments: Any) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = load(*arguments).arrow().to_pylist()
    return result


def test_a_file_is_a_partition_in_the_order_of_their_names(write: Write) -> None:
    write("d/b.jsonl", '{"n": 3}\n')
    write("d/a.jsonl", '{"n": 1}\n{"n": 2}\n')
    table = load("json", "d")
    assert [part["n"].to_pylist() for part in table.parts()] == [[1, 2], [3]]


def test_columns_are_united_over_files(write: Write) -> None:
    write("d/a.json", '{"n": 1, "both": {"x": 1}}')
    write("d/b.json", '{"m": "x", "both": {"y": 2.5}}')
    assert rows("json", "d/*.json") == [
        {"n": 1, "both": {"x": 1, "y": None}, "m": None},
        {"n": None, "both": {"x": None, "y": 2.5}, "m": "x"},
    ]


def test_columns_that_do_not_go_together_are_named_with_their_files(write: Write, refused: Refused) -> None:
    write("d/a.json", '{"n": 1}')
    write("d/b.json", '{"n": "x"}')
    assert refused(load, "json", "d") == [
        "ByzerError: column 'n' is int64 in d/a.json and string in d/b.json",
        "→ load them by two statements, and cast the column before you unite them",
    ]


def test_folders_called_name_equals_value_give_columns(write: Write) -> None:
    write("d/day=2024-01-02/n=1/a.csv", "x")
    write("d/day=2024-01-03/n=__HIVE_DEFAULT_PARTITION__/a.csv", "y")
    assert rows("csv", "d") == [
        {"_c0": "x", "day": "2024-01-02", "n": 1},
        {"_c0": "y", "day": "2024-01-03", "n": None},
    ]


def test_compressed_files_are_read(write: Write) -> None:
    import gzip

    write("a.csv.gz", gzip.compress(b"1,2\n"))
    assert rows("csv", "a.csv.gz") == [{"_c0": "1", "_c1": "2"}]


def test_option_names_are_read_in_any_case(write: Write) -> None:
    write("a.csv", "a;b\n1;2\n")
    assert rows("csv", "a.csv", {"HEADER": "TRUE", "Delimiter": ";", "inferschema": "true"}) == [{"a": 1, "b": 2}]


def test_files_in_s3_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": [1, 2]}), sink)
    objects = {"t/a.parquet": sink.getvalue().to_pybytes(), "t/b.txt": b"one\ntwo"}
    with loopback_s3("lake", objects) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        assert rows("parquet", "s3://lake/t/*.parquet") == [{"n": 1}, {"n": 2}]
        assert rows("text", "s3://lake/t/b.txt")[0] == {"value": "one", "file": "s3://lake/t/b.txt"}


@pytest.mark.parametrize("format", FORMATS)
def test_empty_files_have_no_rows(write: Write, format: str) -> None:
    if format == "parquet":
        pq.write_table(pa.table({"n": pa.array([], pa.int64())}), write("d/x", ""))
    else:
        write("d/x", "")
    assert load(format, "d").num_rows == 0


@pytest.mark.parametrize("format", FORMATS)
def test_what_cannot_be_opened_is_named(write: Write, refused: Refused, format: str) -> None:
    write("d.gz", b"not gzip")
    assert refused(load, format, "d.gz")[0] == "ByzerError: d.gz cannot be read"


@pytest.mark.parametrize(
    ("format", "options", "what", "do"),
    [
        ("cvs", {}, "load cannot read 'cvs'", "did you mean csv?"),
        ("delta", {}, "load cannot read 'delta'", "convert the files"),
        ("csv", {"heade": "true"}, "heade is not a known parameter", "did you mean header?"),
        ("csv", {"header": "perhaps"}, 'header="perhaps" is not true or false', "write true or false"),
        ("csv", {"mode": "PERMISSIVE"}, 'mode="PERMISSIVE" is not a mode of reading here', "or DROPMALFORMED"),
        ("csv", {"sep": "||"}, 'sep="||" is not one ASCII character', 'write one, e.g. ";"'),
        ("text", {"encoding": "klingon"}, 'encoding="klingon" is not an encoding', "write e.g. utf-8, gbk"),
        ("text", {"wholetxt": "true"}, "wholetxt is not a known parameter", "did you mean wholetext?"),
        ("parquet", {"header": "true"}, "header is not a known parameter", "leave it out"),
    ],
)
def test_what_load_does_not_know_is_an_error(
    write: Write, refused: Refused, format: str, options: dict[str, str], what: str, do: str
) -> None:
    write("x", "")
    lines = refused(load, format, "x", options)
    assert what in lines[0]
    assert do in lines[-1]


def test_sparks_options_of_csv_are_read(write: Write) -> None:
    write("a.csv", 'a,b\n1,"x\ny"\n2\nNA,z\n')
    options = {"header": "true", "multiLine": "true", "mode": "DROPMALFORMED", "nullValue": "NA"}
    assert rows("csv", "a.csv", options) == [{"a": "1", "b": "x\ny"}, {"a": None, "b": "z"}]


def test_a_path_may_list_alternatives(write: Write) -> None:
    for name in ("2023/a.csv", "2024/a.csv", "2024/b.csv", "2025/c.csv"):
        write(name, f"{name}\n")
    assert [row["_c0"] for row in rows("csv", "{2023,2024}/{a,b}.csv")] == ["2023/a.csv", "2024/a.csv", "2024/b.csv"]
    assert [row["_c0"] for row in rows("csv", "202{3,{4,5}}/[ac].csv")] == ["2023/a.csv", "2024/a.csv", "2025/c.csv"]
