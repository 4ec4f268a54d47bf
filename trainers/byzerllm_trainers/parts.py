"""A job's data in parts: consecutive rows that any process of the cluster can read without those before them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from byzerllm_adapters.errors import ByzerError

if TYPE_CHECKING:
    import pyarrow as pa

Values: TypeAlias = Mapping[str, Any]

ROWS_AT_ONCE = 2048
BYTES_AT_ONCE = 4 << 20
"""A batch ends at whichever of both it reaches first: a tokenizer needs some hundred bytes for each one of text."""

PART_ROWS = 1 << 15
PART_BYTES = 64 << 20
"""A part of a text file ends likewise; one of Parquet is a row group. A CSV file or a list in JSON is one part: where
a row of it begins only those before it tell."""

UNCOUNTED = sys.maxsize


class Row(NamedTuple):
    """Where a row stands, and its values; an error where none can be read."""

    place: str
    values: Values | ByzerError


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a file, or ``.txt`` files of one row each.

    Attributes:
        paths: The file, or the ``.txt`` files.
        kind: How it is read.
        rows: How many there are.
        begin: Parquet: the row group. Lines of JSON: the byte at which the first one begins.
        first: The number of the first row in its file, or of the line at which a part of lines begins: lines are
            counted from 1, rows from 0.
        table: What follows the number of a row where a table was kept as the file; None: rows are named with the file.
    """

    paths: tuple[Path, ...]
    kind: Literal["texts", "lines", "list", "parquet", "csv"]
    rows: int
    begin: int = 0
    first: int = 0
    table: str | None = None

    def place(self, number: int) -> str:
        """Return what an error calls the row of a number, as `Batch.numbers` has them."""
        if self.table is not None:
            return f"row {number}{self.table}"
        if self.kind == "texts":
            return str(self.paths[number])
        return f"{self.paths[0]}, {'line' if self.kind == 'lines' else 'row'} {number}"


@dataclass(frozen=True)
class Batch:
    """Rows that are in memory together.

    Attributes:
        data: Columns where the file has them, else rows; an error stands for a row that cannot be read.
        numbers: Each one's number in its part, for `Part.place`.
    """

    data: pa.RecordBatch | list[Values | ByzerError]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.data)

    def rows(self) -> Sequence[Values | ByzerError]:
        """Return the rows one by one."""
        rows: Sequence[Values | ByzerError] = self.data if isinstance(self.data, list) else self.data.to_pylist()
        return rows

    def column(self, name: str) -> list[Any]:
        """Return the values of a column: None where there is none, an error where the row cannot be read."""
        if isinstance(self.data, list):
            return [row if isinstance(row, ByzerError) else row.get(name) for row in self.data]
        if name not in self.data.schema.names:
            return [None] * len(self.data)
        values: list[Any] = self.data.column(name).to_pylist()
        return values

    def names(self, row: int) -> list[str]:
        """Return the names of a row's columns, as far as they were read."""
        if not isinstance(self.data, list):
            return list(self.data.schema.names)
        values = self.data[row]
        return [] if isinstance(values, ByzerError) else list(map(str, values))


def cut(files: Iterable[Path], table: str | None = None) -> list[Part]:
    """Cut files into parts, in order; none is empty.

    Args:
        files: Of the kinds in `data_files.SUFFIXES`; a ``.txt`` file is one row.
        table: As of `Part`.

    Raises:
        ByzerError: a file that is not what its name says.
    """
    groups = groupby(files, lambda path: path.suffix == ".txt")
    found = (
        _cut_texts(list(group)) if texts else chain.from_iterable(_cut_file(path, table) for path in group)
        for texts, group in groups
    )
    return [part for part in chain.from_iterable(found) if part.rows]


def read(part: Part, columns: Sequence[str] | None = None) -> Iterator[Batch]:
    """Yield a part's rows in batches.

    Args:
        part: What to read.
        columns: Those of a Parquet file that are read, as far as there are any of them; None: all.

    Raises:
        ByzerError: text that is not UTF-8, or a file that is not what its name says.
    """
    match part.kind:
        case "parquet":
            yield from _read_parquet(part, columns)
        case "csv":
            yield from _read_csv(part)
        case "lines":
            yield from _batched(_json_lines(part))
        case "list":
            yield from _batched(_json_list(part))
        case "texts":
            yield from _batched(_texts(part))


def part_rows(part: Part) -> Iterator[Row]:
    """Yield a part's rows, few of them in memory at a time; errors as of `read`."""
    for batch in read(part):
        for number, values in zip(batch.numbers, batch.rows(), strict=True):
            yield Row(part.place(number), values)


def file_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a data file, in order; the first come before the rest is read. Errors as of `read`."""
    for part in _cut_texts([path]) if path.suffix == ".txt" else _cut_file(path, counted=False):
        yield from part_rows(part)


def place_of(parts: Iterable[Part], index: int) -> str:
    """Return what an error calls a row of which only the number among all rows is known, counted from 0."""
    for part in parts:
        if index < part.rows:
            numbers = chain.from_iterable(batch.numbers for batch in read(part))
            return part.place(next(islice(numbers, index, None)))
        index -= part.rows
    raise IndexError(index)


# -- cutting ------------------------------------------------------------------------------------------------


def _cut_file(path: Path, table: str | None = None, *, counted: bool = True) -> Iterator[Part]:
    """Yield the parts of a file other than ``.txt``.

    Args:
        path: The file.
        table: As of `Part`.
        counted: Whether a part has to know its rows where that takes reading them.
    """
    if path.suffix == ".parquet":
        yield from _cut_parquet(path, table)
    elif path.suffix == ".csv":
        rows = sum(len(batch) for batch in _csv_batches(path)) if counted else UNCOUNTED
        yield Part((path,), "csv", rows)
    elif path.suffix == ".json" and _is_list(path):
        yield Part((path,), "list", len(_list_of(path)) if counted else UNCOUNTED)
    else:
        yield from _cut_lines(path)


def _cut_parquet(path: Path, table: str | None) -> Iterator[Part]:
    import pyarrow.parquet as pq

    with _named(path):
        groups = pq.read_metadata(path)
    first = 0
    for group in range(groups.num_row_groups):
        rows = groups.row_group(group).num_rows
        yield Part((path,), "parquet", rows, begin=group, first=first, table=table)
        first += rows


def _cut_lines(path: Path) -> Iterator[Part]:
    """Cut between lines; blank ones are no rows."""
    rows = begin = end = 0
    first = 1
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            rows += not line.isspace()
            end += len(line)
            if rows == PART_ROWS or end - begin >= PART_BYTES:
                yield Part((path,), "lines", rows, begin, first)
                rows, begin, first = 0, end, number + 1
    yield Part((path,), "lines", rows, begin, first)


def _cut_texts(paths: Sequence[Path]) -> Iterator[Part]:
    """Put small files together."""
    chosen: list[Path] = []
    size = 0
    for path in paths:
        chosen.append(path)
        size += path.stat().st_size
        if len(chosen) == PART_ROWS or size >= PART_BYTES:
            yield Part(tuple(chosen), "texts", len(chosen))
            chosen, size = [], 0
    if chosen:
        yield Part(tuple(chosen), "texts", len(chosen))


# -- reading ------------------------------------------------------------------------------------------------


def _read_parquet(part: Part, columns: Sequence[str] | None) -> Iterator[Batch]:
    import pyarrow.parquet as pq

    number = part.first
    # read in small pieces: a row group of long documents can take gigabytes
    with _named(part.paths[0]), pq.ParquetFile(part.paths[0], buffer_size=1 << 20) as file:
        each = file.metadata.row_group(part.begin).total_byte_size // max(1, part.rows)
        rows = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // max(1, each)))
        chosen = [name for name in columns or () if name in file.schema_arrow.names] or None
        for batch in file.iter_batches(batch_size=rows, row_groups=[part.begin], columns=chosen):
            yield Batch(batch, range(number, number + len(batch)))
            number += len(batch)


def _read_csv(part: Part) -> Iterator[Batch]:
    number = part.first
    for block in _csv_batches(part.paths[0]):
        for begin in range(0, len(block), ROWS_AT_ONCE):
            batch = block.slice(begin, ROWS_AT_ONCE)
            yield Batch(batch, range(number, number + len(batch)))
            number += len(batch)


def _csv_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a CSV file with a header; every cell is a text, an empty one is None."""
    import pyarrow as pa
    from pyarrow import csv

    quoted = csv.ParseOptions(newlines_in_values=True)
    with _named(path):
        with csv.open_csv(path, parse_options=quoted) as reader:
            texts = dict.fromkeys(reader.schema.names, pa.string())
        options = csv.ConvertOptions(column_types=texts, strings_can_be_null=True, null_values=[""])
        with csv.open_csv(path, parse_options=quoted, convert_options=options) as reader:
            yield from reader


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file that Arrow cannot read."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        message = str(error).splitlines()[0]
        if "UTF8" in message:
            raise _not_utf8(path, message) from None
        kind = "a parquet file" if path.suffix == ".parquet" else "a table of CSV"
        raise ByzerError(f"not {kind}: {message}", where=str(path)) from None


def _batched(rows: Iterator[tuple[int, Values | ByzerError, int]]) -> Iterator[Batch]:
    """Gather rows that come with their number and their size in bytes."""
    batch: list[Values | ByzerError] = []
    numbers: list[int] = []
    total = 0
    for number, row, size in rows:
        batch.append(row)
        numbers.append(number)
        total += size
        if len(batch) == ROWS_AT_ONCE or total >= BYTES_AT_ONCE:
            yield Batch(batch, numbers)
            batch, numbers, total = [], [], 0
    if batch:
        yield Batch(batch, numbers)


def _json_lines(part: Part) -> Iterator[tuple[int, Values | ByzerError, int]]:
    [path] = part.paths
    with path.open("rb") as handle:
        handle.seek(part.begin)
        lines = ((number, line) for number, line in enumerate(handle, start=part.first) if not line.isspace())
        for number, line in islice(lines, part.rows):
            yield number, _json_row(_utf8(line, path)), len(line)


def _json_row(line: str) -> Values | ByzerError:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return ByzerError(f"not JSON: {error.msg}")
    return row if isinstance(row, dict) else ByzerError("a line has to be a JSON object")


def _is_list(path: Path) -> bool:
    """Whether a ``.json`` file is one list; one of several values is one of lines."""
    with path.open("rb") as handle:
        line = next((line for line in handle if not line.isspace()), b"")
    return line.lstrip().startswith(b"[")


def _list_of(path: Path) -> list[Any]:
    """Return the objects of a JSON list."""
    try:
        rows: list[Any] = json.loads(_utf8(path.read_bytes(), path))
    except json.JSONDecodeError as error:
        raise ByzerError(f"not JSON: {error.msg}", where=f"{path}, line {error.lineno}") from None
    return rows


def _json_list(part: Part) -> Iterator[tuple[int, Values | ByzerError, int]]:
    [path] = part.paths
    rows = _list_of(path)
    size = path.stat().st_size // max(1, len(rows))
    for number, row in enumerate(rows):
        yield number, row if isinstance(row, dict) else ByzerError("a row has to be a JSON object"), size


def _texts(part: Part) -> Iterator[tuple[int, Values | ByzerError, int]]:
    for number, path in enumerate(part.paths):
        content = path.read_bytes()
        text = _utf8(content, path).replace("\r\n", "\n").replace("\r", "\n")  # as Python reads text
        yield number, {"text": text, "file": str(path)}, len(content)


def _utf8(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error.reason) from None


def _not_utf8(path: Path, reason: str) -> ByzerError:
    return ByzerError(f"{path} is not UTF-8: {reason}", do="convert it, e.g. with iconv -f GB18030 -t UTF-8")
