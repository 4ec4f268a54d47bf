"""Arrow batches in exactly the memory that they need.

Readers leave buffers with room to spare, and slices of larger ones: of a Parquet file of 480 MB in Arrow, 690 MB stay
allocated. Copying each batch as it is read frees the rest at once.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

BUFFER = 8 * 2**20
"""Bytes of batches that are copied into one buffer: small ones leave gaps between them."""


def compact(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Return batches as one table that owns its memory; each few are copied before the next are asked for."""
    import pyarrow as pa

    copies: list[pa.RecordBatch] = []
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(each.nbytes for each in waiting) >= BUFFER:
            copies += _copied(waiting, schema)
            waiting.clear()
    copies += _copied(waiting, schema)
    pa.default_memory_pool().release_unused()
    return pa.Table.from_batches(copies, schema)


def _copied(batches: list[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Write batches as Arrow's stream format into one buffer of the right size, and read them where they lie."""
    import pyarrow as pa

    measured = pa.MockOutputStream()
    _write(batches, schema, measured)
    buffer = pa.py_buffer(mmap.mmap(-1, measured.size()))
    _write(batches, schema, pa.FixedSizeBufferWriter(buffer))
    return iter(pa.ipc.open_stream(buffer))


def _write(batches: list[pa.RecordBatch], schema: pa.Schema, sink: pa.NativeFile) -> None:
    import pyarrow as pa

    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=False)
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
