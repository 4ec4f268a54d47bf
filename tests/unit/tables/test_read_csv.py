"""CSV files, with Spark's options."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_magics.tables import blocks
from byzerllm_magics.tables.load import load

Write = Callable[[str, str | bytes], str]
Refused = Callable[..., list[str]]


def columns(path: str = "a.csv", **options: str) -> dict[str, list[Any]]:
    result: dict[str, list[Any]] = load("csv", path, options).arrow().to_pydict()
    return result


def test_all_is_text_and_without_names_unless_asked(write: Write) -> None:
    write("a.csv", "a,b\n1,2.5\n")
    assert columns() == {"_c0": ["a", "1"], "_c1": ["b", "2.5"]}
    assert columns(header="true") == {"a": ["1"], "b": ["2.5"]}
    assert columns(header="true", inferSchema="true") == {"a": [1], "b": [2.5]}


def test_an_empty_field_is_null_and_a_quoted_one_is_not(write: Write) -> None:
    write("a.csv", 'a,b\n,""\n,x\n')
    assert columns(header="true") == {"a": [None, None], "b": ["", "x"]}


def test_another_word_may_stand_for_null(write: Write) -> None:
    write("a.csv", 'a,b\nNA,"NA"\n1,x\n')
    assert columns(header="true", nullValue="NA", inferSchema="true") == {"a": [None, 1], "b": ["NA", "x"]}


def test_quotes_hold_separators_quotes_and_line_breaks(write: Write) -> None:
    write("a.csv", 'a,b\n"x,""y""\nz",1\n')
    assert columns(header="true") == {"a": ['x,"y"\nz'], "b": ["1"]}


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("a\tb\n1\t2\n", {"sep": "\t"}),
        ("a\tb\n1\t2\n", {"delimiter": r"\t"}),
        ("a|b\n1|2\n", {"sep": "|"}),
        ("'a','b'\n'1','2'\n", {"quote": "'"}),
    ],
)
def test_fields_are_written_as_the_options_say(write: Write, content: str, options: dict[str, str]) -> None:
    write("a.csv", content)
    assert columns(header="true", **options) == {"a": ["1"], "b": ["2"]}


def test_escape_and_no_quote(write: Write) -> None:
    write("a.csv", '"x\\"y",1\n')
    assert columns(escape="\\") == {"_c0": ['x"y'], "_c1": ["1"]}
    write("b.csv", '"x,1\n')
    assert columns("b.csv", quote="") == {"_c0": ['"x'], "_c1": ["1"]}


@pytest.mark.parametrize(
    ("last", "kind", "value"),
    [
        ("2", pa.int64(), 2),
        ("2.5", pa.float64(), 2.5),
        ("word", pa.string(), "word"),
        ("", pa.int64(), None),
        ("99999999999999999999", pa.float64(), 1e20),
    ],
)
def test_types_are_those_of_all_rows(
    write: Write, monkeypatch: pytest.MonkeyPatch, last: str, kind: pa.DataType, value: object
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 64)
    write("a.csv", "a,b\n" + "1,x\n" * 200 + f"{last},x\n")
    column = load("csv", "a.csv", {"header": "true", "inferSchema": "true"}).arrow()["a"]
    assert (column.type, column[-1].as_py(), len(column)) == (kind, value, 201)


@pytest.mark.parametrize(
    ("first", "last", "kind"),
    [
        ("", "7", "int64"),
        ("", "true", "bool"),
        ("", "2024-01-02", "date32[day]"),
        ("", "word", "string"),
        ("true", "7", "string"),
        ("2024-01-02", "2024-01-02 03:04:05", "timestamp[us]"),
        ("2024-01-02", "word", "string"),
        ("12:30:00", "12:31:00", "string"),
    ],
)
def test_types_widen_only_as_far_as_they_have_to(
    write: Write, monkeypatch: pytest.MonkeyPatch, first: str, last: str, kind: str
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 64)
    write("a.csv", "a,b\n" + f"{first},x\n" * 200 + f"{last},x\n")
    table = load("csv", "a.csv", {"header": "true", "inferSchema": "true"}).arrow()
    assert str(table.schema.field("a").type) == kind
    assert table.num_rows == 201


def test_numbers_in_one_file_and_words_in_another_are_text_in_both(write: Write) -> None:
    write("d/a.csv", "a,b\n007,1\n")
    write("d/b.csv", "a,b\nx,2.5\n")
    assert columns("d", header="true", inferSchema="true") == {"a": ["007", "x"], "b": [1.0, 2.5]}


def test_a_folder_may_hold_files_with_other_columns(write: Write) -> None:
    write("d/a.csv", "a,b\n1,2\n")
    write("d/b.csv", "b,c\n3,4\n")
    assert columns("d", header="true") == {"a": ["1", None], "b": ["2", "3"], "c": [None, "4"]}


def test_a_nameless_column_is_named_as_spark_does(write: Write) -> None:
    write("a.csv", ",b\n1,2\n")
    assert columns(header="true") == {"_c0": ["1"], "b": ["2"]}


def test_a_record_may_be_longer_than_a_block(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 64)
    write("a.csv", "a,b\n" + "x" * 5_000 + ",1\ny,2\n")
    assert [len(value) for value in columns(header="true")["a"]] == [5_000, 1]


def test_other_encodings_are_read_if_named(write: Write) -> None:
    write("a.csv", "名,b\n祝威廉,1\n".encode("gbk"))
    assert columns(header="true", charset="gbk") == {"名": ["祝威廉"], "b": ["1"]}


@pytest.mark.parametrize("infer", ["true", "false"])
def test_bytes_that_are_no_text_are_located(write: Write, refused: Refused, infer: str) -> None:
    write("a.csv", "名,b\n祝威廉,1\n".encode("gbk"))
    lines = refused(load, "csv", "a.csv", {"header": "true", "inferSchema": infer})
    assert lines[0].startswith("ByzerError: a.csv is not utf-8: byte 0 is 0xc3")


@pytest.mark.parametrize("infer", ["true", "false"])
@pytest.mark.parametrize("before", [0, 300])
def test_a_record_with_other_fields_is_an_error_with_its_line(
    write: Write, refused: Refused, monkeypatch: pytest.MonkeyPatch, infer: str, before: int
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 256)
    write("a.csv", 'a,b\n"two\nlines",1\n' + "1,2\n" * before + "1,2,3\n4,5\n")
    assert refused(load, "csv", "a.csv", {"header": "true", "inferSchema": infer}) == [
        f"ByzerError: a.csv, line {before + 4}: 3 fields, and 2 in the first line",
        "    1,2,3",
        "→ correct the line, or say how fields are written: sep, quote, escape",
    ]


def test_a_name_that_is_there_twice_is_an_error(write: Write, refused: Refused) -> None:
    write("a.csv", "a,a\n1,2\n")
    assert refused(load, "csv", "a.csv", {"header": "true"})[0] == "ByzerError: a.csv names two columns 'a'"
    assert columns() == {"_c0": ["a", "1"], "_c1": ["a", "2"]}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r'"a\"b"', 'a"b'),
        (r'"\"a\" b"', '"a" b'),
        (r'"a\", b"', 'a", b'),
        (r'"a\\\"b"', r"a\"b"),
        (r'"a""b\"c"', 'a"b"c'),
        (r'"C:\dir \"x\""', 'C:\\dir "x"'),
    ],
)
@pytest.mark.parametrize("end", ["\n", ""])
def test_quotes_with_a_backslash_before_them_are_read_as_spark_reads_them(
    write: Write, written: str, read: str, end: str
) -> None:
    write("a.csv", f"a,b,c\n1,{written},C:\\temp{end}")
    assert columns(header="true") == {"a": ["1"], "b": [read], "c": ["C:\\temp"]}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"a""b"', 'a"b'),
        (r'"C:\dir\"', "C:\\dir\\"),
        (r'"{""a"": ""\""x\""""}"', r'{"a": "\"x\""}'),
        (r"C:\dir\new", r"C:\dir\new"),
        (r'"a\nb"', r"a\nb"),
    ],
)
def test_a_backslash_is_itself_where_quotes_are_doubled(write: Write, written: str, read: str) -> None:
    write("a.csv", f"a,b\n{written},1\n")
    assert columns(header="true") == {"a": [read], "b": ["1"]}


def test_an_escape_that_is_given_holds_in_all_files(write: Write) -> None:
    write("a.csv", '"a\\",1"\n')
    assert columns(escape="\\") == {"_c0": ['a",1']}
    write("b.csv", '"C:\\",1\n')
    assert columns("b.csv", escape="") == {"_c0": ["C:\\"], "_c1": ["1"]}
    write("c.csv", '"a""b",1\n')
    assert columns("c.csv", escape='"') == {"_c0": ['a"b'], "_c1": ["1"]}


def test_an_escape_may_end_a_block(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 64)
    lengths = range(200)
    write("a.csv", "a,b\n" + "".join(f'"{"x" * length}\\"y",1\n' for length in lengths))
    assert columns(header="true")["a"] == [f'{"x" * length}"y' for length in lengths]
