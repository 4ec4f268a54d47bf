"""Rows and documents of a job: handed in as a table (kept in the job folder), or read from a folder of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .data_files import FormatOf, data_files, format_of_files
from .job_folder import JobFolder, read_json, write_json
from .parts import PART_ROWS, Part, Row, cut, part_rows

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_FILE = "rows.parquet"
EVAL_ROWS_FILE = "eval-rows.parquet"
PARTITIONS_FILE = "partitions.json"

READ_AT_ONCE = 4096
"""Rows of a table that are in memory at a time."""


def is_dataset(data: object) -> bool:
    """Whether this is a Ray Dataset, whose rows come in batches."""
    return not isinstance(data, type) and hasattr(data, "iter_batches") and hasattr(data, "materialize")


def columns_of(data: Any) -> list[str]:
    """Return the names of the columns of an Arrow table or a Ray Dataset."""
    return list(data.columns() if is_dataset(data) else data.column_names)


def keep_rows(folder: JobFolder, data: Any, file: str = ROWS_FILE) -> None:
    """Store a job's table in its folder, as `ROWS_FILE` or `EVAL_ROWS_FILE`: the notebook may go.

    Args:
        folder: The job.
        data: An Arrow table, or a Ray Dataset, of which a batch is in memory at a time.
        file: The name it gets.

    Raises:
        ByzerError: batches of a Dataset whose columns have other types than the first one's.
    """
    import pyarrow.parquet as pq

    if not is_dataset(data):
        pq.write_table(data, folder.data / file, row_group_size=PART_ROWS)
        return
    schema = arrow_schema(data)
    with pq.ParquetWriter(folder.data / file, schema) as writer:
        for batch in dataset_batches(data, schema):
            writer.write_table(batch)


def dataset_batches(dataset: Any, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield a Ray Dataset as Arrow tables of its `arrow_schema`, `READ_AT_ONCE` rows at a time.

    Raises:
        ByzerError: batches whose columns have other types.
    """
    import pyarrow as pa

    for batch in dataset.iter_batches(batch_size=READ_AT_ONCE, batch_format="pyarrow"):
        try:
            yield batch.select(schema.names).cast(schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
            reason = str(error).splitlines()[0]
            do = "give its columns one type, e.g. by dataset.map_batches"
            raise ByzerError(f"batches of the Ray Dataset differ: {reason}", do=do) from None


def arrow_schema(dataset: Any) -> pa.Schema:
    """Return a Ray Dataset's schema; its blocks may be pandas frames, whose first batch tells."""
    import pyarrow as pa

    base = getattr(dataset.schema(), "base_schema", None)
    if isinstance(base, pa.Schema):
        return base.remove_metadata()
    first = next(iter(dataset.iter_batches(batch_size=READ_AT_ONCE, batch_format="pyarrow")))
    return first.schema.remove_metadata()


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
        data_dir: A folder of files otherwise (`data_files.SUFFIXES`).

    Raises:
        ByzerError: there is no row, or a file is not what its name says.
    """
    kept = folder.data / ROWS_FILE
    found = cut([kept], table="") if kept.exists() else cut(data_files(data_dir))
    if not found:
        what = "the table has no rows" if kept.exists() else f"the files in {data_dir} have no rows"
        raise ByzerError(what, do="give at least one row")
    return found


def eval_parts(folder: JobFolder) -> list[Part]:
    """Return the rows of the table to evaluate on; none: the job has no such table."""
    kept = folder.data / EVAL_ROWS_FILE
    return cut([kept], table=" of evalTable") if kept.exists() else []


def rows(folder: JobFolder, data_dir: str | None) -> Iterator[Row]:
    """Yield the rows of `parts`, in order."""
    return chain.from_iterable(map(part_rows, parts(folder, data_dir)))


def kept_rows(folder: JobFolder, file: str = ROWS_FILE) -> Iterator[Row]:
    """Yield the rows of a table that `keep_rows` stored, few of them in memory at a time."""
    return chain.from_iterable(map(part_rows, cut([folder.data / file], table="")))


def table_rows(table: pa.Table) -> Iterator[Row]:
    """Yield the rows of a table, a batch of Python objects in memory at a time."""
    number = 0
    for batch in table.to_batches(max_chunksize=READ_AT_ONCE):
        for row in batch.to_pylist():
            yield Row(f"row {number}", row)
            number += 1


def data_format(folder: JobFolder, data_dir: str | None, format_of: FormatOf) -> str:
    """Return the format of the job's rows.

    Args:
        folder: The job; its kept table is read when there is one.
        data_dir: A folder of files otherwise.
        format_of: Names the format by the columns (`Recipe.format_of`).

    Raises:
        ByzerError: they have none that the method can train on, or files have two.
    """
    kept = folder.data / ROWS_FILE
    return format_of(_columns(kept)) if kept.exists() else format_of_files(data_dir, format_of)


def eval_format(folder: JobFolder, format_of: FormatOf) -> str:
    """Return the format of the table to evaluate on; errors as of `data_format`."""
    return format_of(_columns(folder.data / EVAL_ROWS_FILE))


def _columns(path: Any) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names)
