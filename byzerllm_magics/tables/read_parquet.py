"""Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .compact import compact
from .files import File, readable

if TYPE_CHECKING:
    import pyarrow as pa

    from .load_options import ParquetOptions

BATCH_ROWS = 65_536
_READ_AHEAD = 2**20
"""Bytes of a column that are read at once; without it, Arrow holds whole columns in compressed form."""


def read_parquet(files: Sequence[File], options: ParquetOptions) -> list[pa.Table]:
    """Return the rows of each file."""
    del options  # there are none
    return [_read(file) for file in files]


def _read(file: File) -> pa.Table:
    import pyarrow.parquet as pq

    with readable(file.name), file.open_anywhere() as source:
        parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=_READ_AHEAD)
        return compact(parquet.iter_batches(BATCH_ROWS, use_threads=False), parquet.schema_arrow)
