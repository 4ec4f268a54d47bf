"""A job's data in parts: consecutive rows that any process of the cluster can read without those before them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from byzerllm_adapters.errors import ByzerError

if TYPE_CHECKING:
    import pyarrow as pa

Row: TypeAlias = Mapping[str, Any]
Batch: TypeAlias = "pa.RecordBatch | list[Row]"
"""Rows that are in memory together: columns where the file has them, else rows."""

ROWS_AT_ONCE = 1024
BYTES_AT_ONCE = 4 << 20
"""A batch ends at whichever of both it reaches first: a tokenizer needs some hundred bytes for each one of text."""

PART_ROWS = 1 << 15
PART_BYTES = 64 << 20
"""A part of a text file ends likewise; one of Parquet is a row group."""


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a file, or ``.txt`` files of one row each.

    Attributes:
        paths: The file, or the ``.txt`` files.
        rows: How many there are.
        begin: Parquet: the row group. ``.jsonl``: the byte at which the first line begins.
        line: ``.jsonl``: the first line's number, counted from 1.
        first: The first row's number among all of the job's, counted from 0.
    """

    paths: tuple[Path, ...]
    rows: int
    begin: int = 0
    line: int = 1
    first: int = 0


def cut(files: Iterable[Path]) -> list[Part]:
    """Cut ``.txt`` (one row a file), ``.jsonl`` and ``.parquet`` files into parts, in order; none is empty."""
    parts: list[Part] = []
    first = 0
    for texts, group in groupby(files, lambda path: path.suffix == ".txt"):
        for part in _cut_texts(list(group)) if texts else chain.from_iterable(map(_cut_file, group)):
            if part.rows:
                parts.append(replace(part, first=first))
                first += part.rows
    return parts


def read(part: Part, columns: Sequence[str] | None = None) -> Iterator[Batch]:
    """Yield a part's rows in batches.

    Args:
        part: What to read.
        columns: Those of a Parquet file that are read, as far as there are any of them; None: all.

    Raises:
        ByzerError: a line that is not a JSON object, or text that is not UTF-8.
    """
    suffix = part.paths[0].suffix
    if suffix == ".parquet":
        yield from _read_parquet(part, columns)
    else:
        yield from _batched(_json_rows(part) if suffix == ".jsonl" else _text_rows(part))


def as_rows(batch: Batch) -> Sequence[Row]:
    """Return a batch as rows."""
    rows: Sequence[Row] = batch if isinstance(batch, list) else batch.to_pylist()
    return rows


def column(batch: Batch, name: str) -> list[Any]:
    """Return a batch's values of a column, None where there is none."""
    if isinstance(batch, list):
        return [row.get(name) for row in batch]
    if name not in batch.schema.names:
        return [None] * len(batch)
    values: list[Any] = batch.column(name).to_pylist()
    return values


def column_names(part: Part) -> list[str]:
    """Return the columns of a part's first row."""
    batch = next(read(part))
    return list(batch[0] if isinstance(batch, list) else batch.schema.names)


def _cut_file(path: Path) -> Iterator[Part]:
    if path.suffix == ".jsonl":
        yield from _cut_lines(path)
        return
    import pyarrow.parquet as pq

    groups = pq.read_metadata(path)
    for group in range(groups.num_row_groups):
        yield Part((path,), groups.row_group(group).num_rows, begin=group)


def _cut_lines(path: Path) -> Iterator[Part]:
    """Cut between lines; blank ones are no rows."""
    rows = begin = end = 0
    first_line = 1
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            rows += not line.isspace()
            end += len(line)
            if rows == PART_ROWS or end - begin >= PART_BYTES:
                yield Part((path,), rows, begin, first_line)
                rows, begin, first_line = 0, end, number + 1
    yield Part((path,), rows, begin, first_line)


def _cut_texts(paths: Sequence[Path]) -> Iterator[Part]:
    """Put small files together."""
    chosen: list[Path] = []
    size = 0
    for path in paths:
        chosen.append(path)
        size += path.stat().st_size
        if len(chosen) == PART_ROWS or size >= PART_BYTES:
            yield Part(tuple(chosen), len(chosen))
            chosen, size = [], 0
    if chosen:
        yield Part(tuple(chosen), len(chosen))


def _read_parquet(part: Part, columns: Sequence[str] | None) -> Iterator[Batch]:
    import pyarrow.parquet as pq

    # read in small pieces: a row group of long documents can take gigabytes
    with pq.ParquetFile(part.paths[0], buffer_size=1 << 20) as file:
        each = file.metadata.row_group(part.begin).total_byte_size // max(1, part.rows)
        rows = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // max(1, each)))
        chosen = [name for name in columns or () if name in file.schema_arrow.names] or None
        yield from file.iter_batches(batch_size=rows, row_groups=[part.begin], columns=chosen)


def _batched(rows: Iterator[tuple[Row, int]]) -> Iterator[list[Row]]:
    """Gather rows that come with their size in bytes."""
    batch: list[Row] = []
    total = 0
    for row, size in rows:
        batch.append(row)
        total += size
        if len(batch) == ROWS_AT_ONCE or total >= BYTES_AT_ONCE:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _json_rows(part: Part) -> Iterator[tuple[Row, int]]:
    [path] = part.paths
    with path.open("rb") as handle:
        handle.seek(part.begin)
        lines = ((number, line) for number, line in enumerate(handle, start=part.line) if not line.isspace())
        for number, line in islice(lines, part.rows):
            try:
                row = json.loads(_utf8(line, path))
            except json.JSONDecodeError as error:
                raise ByzerError(f"not JSON: {error.msg}", where=f"{path}, line {number}") from None
            if not isinstance(row, dict):
                raise ByzerError("a line has to be a JSON object", where=f"{path}, line {number}")
            yield row, len(line)


def _text_rows(part: Part) -> Iterator[tuple[Row, int]]:
    for path in part.paths:
        content = path.read_bytes()
        text = _utf8(content, path).replace("\r\n", "\n").replace("\r", "\n")  # as Python reads text
        yield {"text": text, "file": str(path)}, len(content)


def _utf8(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        do = "convert it, e.g. with iconv -f GB18030 -t UTF-8"
        raise ByzerError(f"{path} is not UTF-8: {error.reason}", do=do) from None
