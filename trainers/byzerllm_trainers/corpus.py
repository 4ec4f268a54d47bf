"""Rows and documents of a job: handed in as a table (kept in the job folder), or read from a folder of files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.contract import Message
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rows import to_messages

from .job_folder import JobFolder, read_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_FILE = "rows.parquet"
EVAL_ROWS_FILE = "eval-rows.parquet"
PARTITIONS_FILE = "partitions.json"
READ_AT_ONCE = 4096
"""Rows that are in memory at a time."""


def keep_rows(folder: JobFolder, table: pa.Table, file: str = ROWS_FILE) -> None:
    """Store a job's table in its folder, as `ROWS_FILE` or `EVAL_ROWS_FILE`: the notebook may go."""
    import pyarrow.parquet as pq

    pq.write_table(table, folder.data / file)


def keep_partitions(folder: JobFolder, sizes: Sequence[int]) -> None:
    """Store how many rows each partition of the job's table has."""
    write_json(folder.data / PARTITIONS_FILE, {"rows": [0, *accumulate(sizes)]})


def partitions(folder: JobFolder) -> list[int] | None:
    """Return where the partitions of the job's table begin and end among its rows; None: all rows are one whole."""
    kept = folder.data / PARTITIONS_FILE
    bounds: list[int] | None = read_json(kept)["rows"] if kept.exists() else None
    return bounds


def eval_rows(folder: JobFolder) -> Iterator[Mapping[str, Any]] | None:
    """Return the rows of the table to evaluate on; None: the job has none."""
    kept = folder.data / EVAL_ROWS_FILE
    return _parquet(kept) if kept.exists() else None


def rows(folder: JobFolder, data_dir: str | None) -> Iterator[Mapping[str, Any]]:
    """Yield the job's rows, in order.

    Args:
        folder: The job; its kept table is read when there is one.
        data_dir: A folder of ``.txt`` (one document a file), ``.jsonl`` or ``.parquet`` files otherwise.

    Raises:
        ByzerError: no data, a line that is not a JSON object, or text that is not UTF-8.
    """
    kept = folder.data / ROWS_FILE
    if kept.exists():
        yield from _parquet(kept)
        return
    for path in data_files(data_dir):
        try:
            yield from rows_of_file(path)
        except UnicodeDecodeError as error:
            do = "convert it, e.g. with iconv -f GB18030 -t UTF-8"
            raise ByzerError(f"{path} is not UTF-8: {error.reason}", do=do) from None


def messages_of(rows: Iterator[Mapping[str, Any]], kind: str) -> Iterator[list[Message]]:
    """Yield each row's conversation; an error names the row.

    Args:
        rows: Rows of one format.
        kind: The format, as `byzerllm_adapters.rows.detect_format` names it.

    Raises:
        ByzerError: a row that does not fit.
    """
    for number, row in enumerate(rows):
        try:
            yield to_messages(row, kind)
        except ByzerError as error:
            raise ByzerError(error.what, where=f"row {number} (format {kind})", do=error.do) from None


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
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in (".txt", ".jsonl", ".parquet"))
    if not files:
        raise ByzerError(f"no .txt, .jsonl or .parquet file in {path}", where='in "localDataDir"')
    return files


def rows_of_file(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of one of the `data_files`; a ``.txt`` is one document."""
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix == ".jsonl":
        yield from _json_lines(path)
    else:
        yield {"text": path.read_text(encoding="utf-8"), "file": str(path)}


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=READ_AT_ONCE):
            yield from batch.to_pylist()


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ByzerError(f"not JSON: {error.msg}", where=f"{path}, line {number}") from None
            if not isinstance(row, dict):
                raise ByzerError("a line has to be a JSON object", where=f"{path}, line {number}")
            yield row
