"""The files of a data folder, and the one format that their rows have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .parts import Row, file_rows

SUFFIXES = (".txt", ".jsonl", ".json", ".parquet", ".csv")

SAMPLE = 100
"""Rows of a file that are looked at until one tells the format: the first may be one that does not fit."""

FormatOf = Callable[[Iterable[str]], str]
"""Names the format that rows of these columns have, or raises why they have none."""


def data_files(data_dir: str | None) -> list[Path]:
    """Files of a data folder, sorted by name.

    Raises:
        ByzerError: the folder is missing or holds no data file, or nothing is in any of them.
    """
    if data_dir is None:
        raise ByzerError("the job has no data", do='give inputTable="…" or localDataDir="…"')
    path = Path(data_dir).expanduser()
    if not path.is_dir():
        do = f"give the folder that it is in: {path.parent}" if path.is_file() else "check the path"
        what = f"{path} is a file" if path.is_file() else f"no folder {path}"
        raise ByzerError(what, where='in "localDataDir"', do=do)
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in SUFFIXES)
    if not files:
        kinds = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise ByzerError(f"no {kinds} file in {path}", where='in "localDataDir"')
    if not any(file.stat().st_size for file in files):
        raise ByzerError(f"every file in {path} is empty", where='in "localDataDir"', do="check the folder's files")
    return files


def format_of_files(data_dir: str | None, format_of: FormatOf) -> str:
    """Return the format that all files of a folder have, told by the first row of each that has any.

    Raises:
        ByzerError: the rows of a file have no format, two files have two, or there are no rows.
    """
    found: dict[str, Path] = {}
    for path in data_files(data_dir):
        if (kind := _format_of_file(path, format_of)) is not None:
            found.setdefault(kind, path)
        if len(found) > 1:
            (one, its_file), (other, another) = found.items()
            raise ByzerError(
                f"the data folder mixes formats: {one} and {other}",
                where=f"{its_file}\n{another}",
                do="keep one of them, or train on them one after another",
            )
    if not found:
        raise ByzerError(f"the files in {data_dir} have no rows", where='in "localDataDir"')
    return next(iter(found))


def _format_of_file(path: Path, format_of: FormatOf) -> str | None:
    """Return the format of a file; None: it has no rows."""
    strange: ByzerError | None = None
    for row in islice(file_rows(path), SAMPLE):
        try:
            return format_of(values_of(row))
        except ByzerError as error:
            strange = strange or ByzerError(error.what, where=row.place, do=error.do)
    if strange is not None:
        raise strange
    return None


def values_of(row: Row) -> Mapping[str, Any]:
    """Return a row's values, or raise why it has none."""
    if isinstance(row.values, ByzerError):
        raise row.values
    return row.values
