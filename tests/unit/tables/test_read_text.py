"""Text files: a row a line, or a row a file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from byzerllm_magics.tables import read_text
from byzerllm_magics.tables.load import load

Write = Callable[[str, str | bytes], str]
Refused = Callable[..., list[str]]


def lines(path: str, **options: str) -> list[str]:
    values: list[str] = load("text", path, options).arrow()["value"].to_pylist()
    return values


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\nb", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\rb\r", ["a", "b"]),
        ("a\rb", ["a", "b"]),
        ("a\n\nb\r\n\r\nc", ["a", "", "b", "", "c"]),
        ("\n", [""]),
        ("\ufeffa\n祝威廉\n", ["a", "祝威廉"]),
        ("", []),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 3, 4_096])
def test_lines_end_as_on_any_system_wherever_blocks_end(
    write: Write, monkeypatch: pytest.MonkeyPatch, content: str, found: list[str], block: int
) -> None:
    monkeypatch.setattr(read_text, "BLOCK", max(block, 3 if "\ufeff" in content else 1))
    assert lines(write("a.txt", content)) == found


def test_each_line_has_its_files_name(write: Write) -> None:
    write("d/a.txt", "one\ntwo")
    write("d/b.txt", "three")
    frame = load("text", "d").df()
    assert frame["value"].tolist() == ["one", "two", "three"]
    assert [Path(name).name for name in frame["file"]] == ["a.txt", "a.txt", "b.txt"]
    assert frame["file"][0] == str(Path.cwd() / "d" / "a.txt")


def test_wholetext_gives_a_row_a_file(write: Write) -> None:
    write("d/a.txt", "\ufeffone\r\ntwo\n")
    write("d/b.txt", "")
    table = load("text", "d/*", {"wholetext": "true"})
    assert table.arrow()["value"].to_pylist() == ["one\r\ntwo\n", ""]
    assert (table.num_rows, table.partitions) == (2, 2)


def test_other_encodings_are_read_if_named(write: Write) -> None:
    write("a.txt", "祝威廉\n你好".encode("gbk"))
    assert lines("a.txt", encoding="gbk") == ["祝威廉", "你好"]
    assert lines("a.txt", encoding="GBK", wholetext="true") == ["祝威廉\n你好"]


@pytest.mark.parametrize("wholetext", ["true", "false"])
@pytest.mark.parametrize("before", [0, 1, 5_000_000])
def test_bytes_that_are_no_text_are_located(write: Write, refused: Refused, wholetext: str, before: int) -> None:
    write("a.txt", b"x" * before + b"\n\xe7\xa5\x9d\xff rest")
    assert refused(load, "text", "a.txt", {"wholetext": wholetext}) == [
        f"ByzerError: a.txt is not utf-8: byte {before + 4:,} is 0xff",
        "in line 2",
        '→ say its encoding, e.g. encoding="gbk"',
    ]


def test_a_character_that_is_cut_off_is_located(write: Write, refused: Refused) -> None:
    write("a.txt", "好".encode()[:2])
    assert "byte 0 is 0xe5" in refused(load, "text", "a.txt")[0]


def test_a_wrong_encoding_is_named(write: Write, refused: Refused) -> None:
    write("a.txt", b"ok\n\xff\xff")
    assert refused(load, "text", "a.txt", {"encoding": "gbk"})[0] == "ByzerError: a.txt is not gbk: byte 3 is 0xff"


def test_a_line_may_be_longer_than_a_block(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_text, "BLOCK", 64)
    assert lines(write("a.txt", "x" * 1_000 + "\n" + "y" * 1_000)) == ["x" * 1_000, "y" * 1_000]
