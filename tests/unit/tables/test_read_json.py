"""JSON files: an object a line, a list of objects, or one object."""

from collections.abc import Callable
from typing import Any

import pytest

from byzerllm_magics.tables import blocks
from byzerllm_magics.tables.load import load

Write = Callable[[str, str | bytes], str]
Refused = Callable[..., list[str]]


def rows(path: str, **options: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = load("json", path, options).arrow().to_pylist()
    return result


def test_an_object_a_line_is_a_row(write: Write) -> None:
    write("a.jsonl", '{"n": 1, "list": [1, 2]}\n\n{"n": 2.5, "o": {"x": "祝"}}')
    assert rows("a.jsonl") == [{"n": 1.0, "list": [1, 2], "o": None}, {"n": 2.5, "list": None, "o": {"x": "祝"}}]


def test_a_list_of_objects_is_as_many_rows(write: Write) -> None:
    write("a.json", '\ufeff [\n {"n": 1},\n {"n": null, "s": "x"}\n]')
    assert rows("a.json") == [{"n": 1, "s": None}, {"n": None, "s": "x"}]


def test_objects_over_several_lines_are_rows_if_asked(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 16)
    write("a.json", '{\n "n": 1\n}' * 20)
    assert rows("a.json", multiLine="true") == [{"n": 1}] * 20


def test_what_looks_like_a_date_stays_text(write: Write) -> None:
    write("a.json", '{"d": "2024-01-02 03:04:05", "l": [{"d": "2024-01-02"}]}\n{"d": "x", "l": []}')
    assert rows("a.json")[0] == {"d": "2024-01-02 03:04:05", "l": [{"d": "2024-01-02"}]}
    write("b.json", '{"d": "2024-01-02 03:04:05", "l": [{"d": "2024-01-02T03:04:05"}]}')
    assert rows("b.json") == [{"d": "2024-01-02 03:04:05", "l": [{"d": "2024-01-02T03:04:05"}]}]


def test_an_object_may_be_longer_than_a_block(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 64)
    write("a.json", '{"a": "' + "x" * 5_000 + '"}\n' * 1 + '{"a": "y"}\n')
    assert [len(row["a"]) for row in rows("a.json")] == [5_000, 1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"n": 1}\n{"n": }\n', "a.json, line 2, column 7: Expecting value"),
        ('{"n": 1}\n[1]\n', "a.json, line 2 holds a list, not an object"),
        ('{"n": 1}\n\n{"n": "x"}\n', "a.json, line 3: n is text, and a number in line 1"),
        ('{"n": {"m": [1]}}\n{"n": {"m": ["x"]}}\n', "a.json, line 2: n.m[] is text, and a number in line 1"),
        ('{"n": true}\n{"n": 1}\n', "a.json, line 2: n is a number, and a truth value in line 1"),
        ('[{"n": 1}, {"n": "x"}]', "a.json, object 2: n is text, and a number in object 1"),
        ('[{"n": 1}, 7]', "a.json, object 2 holds a number, not an object"),
        ('[{"n": 1},\n {"n": ]', "a.json, line 2, column 8: Expecting value"),
        ('{"n": 1, "n": 2}', "a.json cannot be read as JSON"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(write: Write, refused: Refused, content: str, expected: str) -> None:
    write("a.json", content)
    assert refused(load, "json", "a.json")[0] == f"ByzerError: {expected}"


def test_an_object_over_several_lines_points_at_the_option(
    write: Write, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 16)
    write("a.json", '{\n "n": 1\n}' * 20)
    lines = refused(load, "json", "a.json")
    assert lines[0].startswith("ByzerError: a.json, line 1")
    assert "multiLine" in lines[-1]


def test_bytes_that_are_no_text_are_located(write: Write, refused: Refused) -> None:
    for content in (b'{"n": "\xff"}', b'[{"n": "\xff"}]'):
        write("a.json", content)
        assert "a.json is not utf-8: byte" in refused(load, "json", "a.json")[0]


def test_a_missing_folder_is_no_traceback(refused: Refused) -> None:
    assert refused(load, "json", "no/such/*.json")[0] == "ByzerError: no file matches no/such/*.json"
