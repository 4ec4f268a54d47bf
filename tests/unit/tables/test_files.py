"""Files by path, folder and glob, here and in S3."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.tables.files import find
from tests.unit.tables.loopback_s3 import loopback_s3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "b.txt",
        "a.txt",
        "_SUCCESS",
        ".hidden",
        "sub/c.txt",
        "sub/deep/d.txt",
        "_temporary/x.txt",
        "q[1].txt",
    ):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "data"


def names(path: str, folder: Path) -> list[str]:
    return [str(Path(file.path).relative_to(folder)) for file in find(path)]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("data/a.txt", ["a.txt"]),
        ("./data/../data/a.txt", ["a.txt"]),
        ("~/data/a.txt", ["a.txt"]),
        ("data", ["a.txt", "b.txt", "q[1].txt", "sub/c.txt", "sub/deep/d.txt"]),
        ("data/", ["a.txt", "b.txt", "q[1].txt", "sub/c.txt", "sub/deep/d.txt"]),
        ("data/*", ["a.txt", "b.txt", "q[1].txt", "sub/c.txt", "sub/deep/d.txt"]),
        ("data/*.txt", ["a.txt", "b.txt", "q[1].txt"]),
        ("data/[ab].txt", ["a.txt", "b.txt"]),
        ("data/?.txt", ["a.txt", "b.txt"]),
        ("data/*/*.txt", ["sub/c.txt"]),
        ("data/**/*.txt", ["a.txt", "b.txt", "q[1].txt", "sub/c.txt", "sub/deep/d.txt"]),
        ("data/**/d.txt", ["sub/deep/d.txt"]),
        ("data/**", ["a.txt", "b.txt", "q[1].txt", "sub/c.txt", "sub/deep/d.txt"]),
        ("data/q[1].txt", ["q[1].txt"]),
        ("data/_SUCCESS", ["_SUCCESS"]),
        ("data/.h*", [".hidden"]),
    ],
)
def test_a_path_a_folder_and_a_glob_are_found_sorted(folder: Path, path: str, found: list[str]) -> None:
    assert names(path, folder) == found


def test_urls_of_files_are_understood(folder: Path) -> None:
    for prefix in ("file://", "file:"):
        assert names(f"{prefix}{folder}/a.txt", folder) == ["a.txt"]
    assert names(f"FILE://{folder}/*.txt", folder) == ["a.txt", "b.txt", "q[1].txt"]


def test_a_file_knows_its_url_and_a_short_name(folder: Path) -> None:
    [file] = find("data/a.txt")
    assert (file.name, file.url) == ("data/a.txt", str(folder / "a.txt"))


@pytest.mark.parametrize(
    ("path", "where", "do"),
    [
        ("data/aa.txt", "data holds .hidden, _SUCCESS, _temporary, a.txt, b.txt, q[1].txt, …", "did you mean a.txt?"),
        ("dta/a.txt", ". holds data", "did you mean data?"),
        ("data/zzzzzz/*.csv", "data holds .hidden", "paths are relative to"),
        ("nothing/here", ". holds data", "paths are relative to"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_nothing_found_says_what_is_there(path: str, where: str, do: str) -> None:
    with pytest.raises(ByzerError) as caught:
        find(path)
    assert caught.value.what == f"no file matches {path}"
    assert caught.value.where.startswith(where)
    assert caught.value.do.startswith(do)


@pytest.mark.parametrize(
    ("path", "what"),
    [("hdfs://host/a", "hdfs:// cannot be read here: hdfs://host/a"), ("  ", "the path is empty")],
)
def test_what_cannot_be_read_is_said(path: str, what: str) -> None:
    with pytest.raises(ByzerError) as caught:
        find(path)
    assert caught.value.what == what


def test_folders_give_keys(folder: Path) -> None:
    part = folder / "day=2024-01-02" / "lang=__HIVE_DEFAULT_PARTITION__" / "p.txt"
    part.parent.mkdir(parents=True)
    part.write_text("x")
    assert [file.keys for file in find("data/*/*/p.txt")] == [{"day": "2024-01-02", "lang": None}]
    assert [file.keys for file in find(str(part))] == [{}]


# -- S3 ---------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """What the bucket ``lake`` of a server on this machine holds, by key."""
    objects = {"raw/a.txt": b"one\ntwo\n", "raw/b.txt": b"three", "raw/_SUCCESS": b"", "raw/sub/c.txt": b"four"}
    with loopback_s3("lake", objects) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield objects


@pytest.mark.usefixtures("bucket")
def test_files_in_s3_are_found_and_read() -> None:
    assert [file.url for file in find("s3://lake/raw")] == [
        "s3://lake/raw/a.txt",
        "s3://lake/raw/b.txt",
        "s3://lake/raw/sub/c.txt",
    ]
    [file] = find("s3a://lake/raw/a*")
    assert file.name == "s3://lake/raw/a.txt"
    with file.open() as stream:
        assert stream.read() == b"one\ntwo\n"


@pytest.mark.usefixtures("bucket")
def test_a_missing_key_of_s3_names_the_nearest() -> None:
    with pytest.raises(ByzerError) as caught:
        find("s3://lake/raw/aa.txt")
    assert caught.value.where == "s3://lake/raw holds _SUCCESS, a.txt, b.txt, sub"
    assert caught.value.do == "did you mean a.txt?"


@pytest.mark.usefixtures("bucket")
def test_a_refusal_of_s3_names_the_variables_of_the_environment() -> None:
    with pytest.raises(ByzerError) as caught:
        find("s3://secret/raw/a.txt")
    assert caught.value.what == "s3://secret/raw/a.txt cannot be read"
    assert "ACCESS_DENIED" in caught.value.where
    assert "AWS_ENDPOINT_URL" in caught.value.do
    assert len(caught.value.render()) <= 5
