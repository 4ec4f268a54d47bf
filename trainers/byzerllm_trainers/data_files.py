"""The files of a data folder as rows, each with the place that an error names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from byzerllm_adapters.errors import ByzerError

SUFFIXES = (".txt", ".jsonl", ".json", ".parquet", ".csv")
READ_AT_ONCE = 4096
"""Rows that are in memory at a time."""

SAMPLE = 100
"""Rows of a file that are looked at until one tells the format: the first may be one that does not fit."""

FormatOf = Callable[[Iterable[str]], str]
"""Names the format that rows of these columns have, or raises why they have none."""


class Row(NamedTuple):
    """Where a row stands, and its values; an error where none can be read."""

    place: str
    values: Mapping[str, Any] | ByzerError


def data_files(data_dir: str | None) -> list[Path]:
    """Files of a data folder, sorted by name.

    Raises:
        ByzerError: the folder is missing or holds no data file.
    """
    if data_dir is None:
        raise ByzerError("the job has no data", do='give inputTable="…" or localDataDir="…"')
    path = Path(data_dir).expanduser()
    if not path.is_dir():
        raise ByzerError(f"no folder {path}", where='in "localDataDir"', do="check the path")
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in SUFFIXES)
    if not files:
        kinds = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise ByzerError(f"no {kinds} file in {path}", where='in "localDataDir"')
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


def file_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a data file, in order; of a ``.txt`` the one document that it is.

    Raises:
        ByzerError: text that is not UTF-8, or a file that is not what its name says.
    """
    try:
        yield from _READERS[path.suffix](path)
    except UnicodeDecodeError as error:
        do = "convert it, e.g. with iconv -f GB18030 -t UTF-8"
        raise ByzerError(f"{path} is not UTF-8: {error.reason}", do=do) from None


def parquet_rows(path: Path, place: str = "row {}") -> Iterator[Row]:
    """Yield the rows of a parquet file, a batch in memory at a time.

    Args:
        path: The file.
        place: What a row's number, counted from 0, is put into.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = count()
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=READ_AT_ONCE):
                yield from (Row(place.format(next(numbers)), row) for row in batch.to_pylist())
    except pa.ArrowInvalid as error:
        raise ByzerError(f"not a parquet file: {_first_line(error)}", where=str(path)) from None


def _document(path: Path) -> Iterator[Row]:
    yield Row(str(path), {"text": path.read_text(encoding="utf-8"), "file": str(path)})


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                yield _json_row(f"{path}, line {number}", line)


def _json_row(place: str, line: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return Row(place, ByzerError(f"not JSON: {error.msg}"))
    return Row(place, row if isinstance(row, dict) else ByzerError("a line has to be a JSON object"))


def _json(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSON list; a file of several values is one of JSON lines."""
    text = path.read_text(encoding="utf-8")
    if not text.lstrip().startswith("["):
        yield from _json_lines(path)
        return
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise ByzerError(f"not JSON: {error.msg}", where=f"{path}, line {error.lineno}") from None
    for number, row in enumerate(rows):
        fits = isinstance(row, dict)
        yield Row(f"{path}, row {number}", row if fits else ByzerError("a row has to be a JSON object"))


def _csv(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV file with a header; every cell is a text, an empty one is None."""
    import pyarrow as pa
    from pyarrow import csv

    quoted = csv.ParseOptions(newlines_in_values=True)
    numbers = count()
    try:
        with csv.open_csv(path, parse_options=quoted) as reader:
            texts = dict.fromkeys(reader.schema.names, pa.string())
        options = csv.ConvertOptions(column_types=texts, strings_can_be_null=True, null_values=[""])
        with csv.open_csv(path, parse_options=quoted, convert_options=options) as reader:
            for batch in reader:
                yield from (Row(f"{path}, row {next(numbers)}", row) for row in batch.to_pylist())
    except pa.ArrowInvalid as error:
        message = _first_line(error)
        if "UTF8" in message:
            raise UnicodeDecodeError("utf-8", b"", 0, 0, message) from None
        raise ByzerError(f"not a table of CSV: {message}", where=str(path)) from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".txt": _document,
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": lambda path: parquet_rows(path, f"{str(path).replace('{', '{{').replace('}', '}}')}, row {{}}"),
    ".csv": _csv,
}
