"""Training data as the authors of adapters know it from Byzer-LLM: `RayContext`, `DataServer`, `BlockRow`.

There these came from pyjava and read from a JVM; here they stand over tables of this process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from byzerllm_adapters.errors import ByzerError

BATCH_ROWS = 1024
"""Rows that are turned into Python objects at a time."""


@dataclass(frozen=True)
class DataServer:
    """One table that a training function was given: `sft_train(data_refs: list[DataServer], …)`.

    Attributes:
        table: A pandas, polars or pyarrow table, or anything else with the Arrow C stream.
    """

    table: Any

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Hand the table on without copying it."""
        return self.table.__arrow_c_stream__(requested_schema)


class RayContext:
    """Reads what `DataServer`s hold."""

    @staticmethod
    def collect_from(servers: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """Yield the rows of all tables, one after another, each a dict from column to value.

        Args:
            servers: `DataServer`s, or the tables themselves.

        Raises:
            ByzerError: Something in it is not a table.
        """
        import pyarrow as pa

        for server in servers:
            if not hasattr(server, "__arrow_c_stream__"):
                raise ByzerError(f"a {type(server).__name__} is not a table", do="give a DataServer or a DataFrame")
            for batch in pa.RecordBatchReader.from_stream(server):
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield from batch.slice(start, BATCH_ROWS).to_pylist()


@dataclass(frozen=True)
class BlockRow:
    """A piece of a file in a table of results, as `sft_train` may yield it.

    Attributes:
        start: Where the piece begins in the file, in bytes.
        offset: Where it ends.
        value: Its bytes.
    """

    start: int
    offset: int
    value: bytes
