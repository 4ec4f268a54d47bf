"""Rows of an Arrow table in another order, a batch at a time.

`pyarrow.Table.take` joins all chunks of a text column first, each time: twice the memory, and seconds for a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa

BATCH_ROWS = 65_536
BATCH_BYTES = 16 * 2**20
"""A batch has this many rows or bytes, whichever is less: rows that are whole books are gathered a few at a time."""


def gather(base: pa.Table, order: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Yield ``base[order[0]], base[order[1]], …`` in batches that own their rows.

    Args:
        base: The rows.
        order: Numbers of rows of ``base``, of any integer type.
    """
    import numpy as np

    chunks = [chunk for chunk in base.to_batches() if chunk.num_rows]
    starts = np.cumsum([0, *(chunk.num_rows for chunk in chunks)])[:-1]
    rows = _rows_a_batch(base)
    for begin in range(0, len(order), rows):
        wanted = order[begin : begin + rows].astype(np.int64)
        yield from _take(chunks, starts, wanted).to_batches()


def _rows_a_batch(base: pa.Table) -> int:
    bytes_a_row = base.nbytes / max(1, base.num_rows)
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(1, bytes_a_row))))


def _take(chunks: list[pa.RecordBatch], starts: np.ndarray, wanted: np.ndarray) -> pa.Table:
    """Take from each chunk what is in it; put the rows back in order where that mixed them."""
    import numpy as np
    import pyarrow as pa

    chunk_of = np.searchsorted(starts, wanted, side="right") - 1
    grouping = None
    if (np.diff(chunk_of) < 0).any():
        grouping = np.argsort(chunk_of, kind="stable")
        wanted, chunk_of = wanted[grouping], chunk_of[grouping]
    used, begins = np.unique(chunk_of, return_index=True)
    pieces = np.split(wanted, begins[1:])
    taken = pa.Table.from_batches(
        [chunks[k].take(pa.array(piece - starts[k])) for k, piece in zip(used, pieces, strict=True)]
    ).combine_chunks()
    return taken if grouping is None else taken.take(pa.array(np.argsort(grouping, kind="stable")))
