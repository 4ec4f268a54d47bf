"""Rows and documents of a job: handed in as a table (kept in the job folder), or read from a folder of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from byzerllm_adapters.contract import Message
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.rows import to_messages

from .job_folder import JobFolder, read_json, write_json
from .parts import PART_ROWS, ROWS_AT_ONCE, Part, Row, as_rows, cut, read

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_FILE = "rows.parquet"
EVAL_ROWS_FILE = "eval-rows.parquet"
PARTITIONS_FILE = "partitions.json"


def keep_rows(folder: JobFolder, table: pa.Table, file: str = ROWS_FILE) -> None:
    """Store a job's table in its folder, as `ROWS_FILE` or `EVAL_ROWS_FILE`: the notebook may go."""
    import pyarrow.parquet as pq

    pq.write_table(table, folder.data / file, row_group_size=PART_ROWS)


def keep_partitions(folder: JobFolder, sizes: Sequence[int]) -> None:
    """Store how many rows each partition of the job's table has."""
    write_json(folder.data / PARTITIONS_FILE, {"rows": [0, *accumulate(sizes)]})


def partitions(folder: JobFolder) -> list[int] | None:
    """Return where the partitions of the job's table begin and end among its rows; None: all rows are one whole."""
    kept = folder.data / PARTITIONS_FILE
    bounds: list[int] | None = read_json(kept)["rows"] if kept.exists() else None
    return bounds


def parts(folder: JobFolder, data_dir: str | None) -> list[Part]:
    """Return the job's rows in parts: its kept table's, or else those of a folder of files.

    Args:
        folder: The job; its kept table is read when there is one.
        data_dir: A folder of ``.txt`` (one document a file), ``.jsonl`` or ``.parquet`` files otherwise.

    Raises:
        ByzerError: there is no row.
    """
    kept = folder.data / ROWS_FILE
    found = cut([kept] if kept.exists() else data_files(data_dir))
    if not found:
        what = "the table has no rows" if kept.exists() else f"the files in {data_dir} have no rows"
        raise ByzerError(what, do="give at least one row")
    return found


def eval_parts(folder: JobFolder) -> list[Part]:
    """Return the rows of the table to evaluate on; none: the job has no such table."""
    kept = folder.data / EVAL_ROWS_FILE
    return cut([kept]) if kept.exists() else []


def rows(folder: JobFolder, data_dir: str | None) -> Iterator[Row]:
    """Yield the rows of `parts`, in order."""
    for part in parts(folder, data_dir):
        for batch in read(part):
            yield from as_rows(batch)


def table_rows(table: pa.Table, limit: int) -> Iterator[Row]:
    """Yield at most this many rows of a table, few of them in Python's memory at a time."""
    for batch in table.slice(0, limit).to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from batch.to_pylist()


def messages_of(rows: Iterator[Row], kind: str) -> Iterator[list[Message]]:
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
        ByzerError: the folder is missing or holds no data file, or nothing is in any of them.
    """
    if data_dir is None:
        raise ByzerError("the job has no data", do='give inputTable="…" or localDataDir="…"')
    path = Path(data_dir).expanduser()
    if not path.is_dir():
        raise ByzerError(f"no folder {path}", where='in "localDataDir"', do="check the path")
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in (".txt", ".jsonl", ".parquet"))
    if not files:
        raise ByzerError(f"no .txt, .jsonl or .parquet file in {path}", where='in "localDataDir"')
    if not any(file.stat().st_size for file in files):
        raise ByzerError(f"every file in {path} is empty", where='in "localDataDir"', do="check the folder's files")
    return files
