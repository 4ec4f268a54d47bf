"""A table: Arrow rows and the partitions that they are in."""

from __future__ import annotations

import difflib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from . import render
from .gather import gather

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import pandas as pd
    import pyarrow as pa

HIDDEN_PREFIX = "__error_of_"
"""Columns of this beginning carry the errors of model calls: SQL sees them, people do not."""

_ROWS_AT_ONCE = 1024
"""Rows that are made Python's objects together."""


class Table:
    """Rows of an Arrow table in partitions; nothing is copied to make one.

    Without ``order``, the partitions are consecutive slices of ``base``. With it, the rows of the table are
    ``base[order[0]], base[order[1]], …``, gathered a batch at a time whenever they are read.

    Whatever reads Arrow's C stream (pandas, polars, DuckDB, pyarrow) reads a table directly; in Python ``t["answer"]``
    is a column and ``for row in t`` gives rows as dicts.

    Args:
        base: The rows. Metadata of its schema is dropped.
        bounds: Where partitions begin and end among the rows: ascending, from 0 to the number of rows, one more
            than there are partitions. None: one partition.
        order: Numbers of rows of ``base``, of an unsigned integer type; None: all, as they are.
    """

    def __init__(self, base: pa.Table, bounds: Sequence[int] | None = None, order: np.ndarray | None = None) -> None:
        self._base, self._order = base.replace_schema_metadata(None), order
        self._bounds = [0, self.num_rows] if bounds is None else [int(bound) for bound in bounds]
        if self._bounds != sorted(self._bounds) or self._bounds[:1] + self._bounds[-1:] != [0, self.num_rows]:
            raise ValueError(f"{self.num_rows} rows are not in partitions that begin at {self._bounds}")

    @property
    def num_rows(self) -> int:
        """How many rows."""
        return int(self._base.num_rows) if self._order is None else len(self._order)

    def __len__(self) -> int:
        return self.num_rows

    @property
    def schema(self) -> pa.Schema:
        """Names and Arrow types of the visible columns."""
        return self._visible()._base.schema

    @property
    def column_names(self) -> list[str]:
        """Names of the visible columns."""
        return list(self.schema.names)

    @property
    def columns_with_errors(self) -> list[str]:
        """Names of the columns of answers: those that have a hidden column beside them."""
        hidden = (name for name in self._base.column_names if name.startswith(HIDDEN_PREFIX))
        return [name.removeprefix(HIDDEN_PREFIX) for name in hidden]

    @property
    def partitions(self) -> int:
        """How many partitions; some may be empty."""
        return len(self._bounds) - 1

    @property
    def partition_sizes(self) -> list[int]:
        """How many rows each partition has."""
        return [end - begin for begin, end in pairwise(self._bounds)]

    def without_rows(self) -> Table:
        """Return a table of the same columns, hidden ones included, and no rows."""
        return Table(self._base.slice(0, 0))

    def without_errors(self) -> Table:
        """Return the same rows and partitions without the hidden columns."""
        return self._visible()

    # -- rows ---------------------------------------------------------------------------------------------

    def arrow(self) -> pa.Table:
        """Return all rows in partition order, hidden columns included; a copy only of scattered rows."""
        return self._rows(0, self.num_rows)

    def parts(self) -> Iterator[pa.Table]:
        """Yield each partition, hidden columns included: a slice, or a copy of that partition's rows alone."""
        for begin, end in pairwise(self._bounds):
            yield self._rows(begin, end)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each row's visible columns by name; a batch of rows at a time is made Python's."""
        visible = self._visible()
        for begin in range(0, self.num_rows, _ROWS_AT_ONCE):
            yield from visible._rows(begin, min(begin + _ROWS_AT_ONCE, self.num_rows)).to_pylist()

    def __getitem__(self, name: str) -> pd.Series[Any]:
        """Return a column as a pandas Series.

        Raises:
            KeyError: there is no column of that name; the nearest one.
        """
        if not isinstance(name, str):
            raise KeyError(f"a table's columns have names, and {name!r} is none: df() makes a DataFrame of it")
        if name not in self._base.column_names:
            near = difflib.get_close_matches(name, self.column_names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"columns: {', '.join(self.column_names[:12])}"
            raise KeyError(f"no column {name!r}: {hint}")
        column: pd.Series[Any] = self.select([name]).arrow().to_pandas()[name]
        return column

    def __contains__(self, name: object) -> bool:
        """Whether there is a visible column of that name, as with a DataFrame."""
        return name in self.column_names

    def head(self, rows: int) -> pa.Table:
        """Return the visible columns of the first rows."""
        return self._visible()._rows(0, rows)

    def df(self) -> pd.DataFrame:
        """Return the visible columns as a pandas DataFrame, in partition order."""
        frame: pd.DataFrame = self._visible().arrow().to_pandas()
        return frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Give the visible columns to a reader of Arrow's C stream."""
        return self._visible().scannable().__arrow_c_stream__(requested_schema)

    def scannable(self) -> Any:
        """Return what gives an Arrow C stream of all columns, any number of times: hidden ones too, nothing copied."""
        return self._base if self._order is None else _Gathered(self._base, self._order)

    # -- other tables of the same rows --------------------------------------------------------------------

    def select(self, names: Sequence[str]) -> Table:
        """Return the same rows and partitions with these columns alone; hidden ones may be named."""
        return Table(self._base.select(list(names)), self._bounds, self._order)

    def regrouped(self, bounds: Sequence[int], order: np.ndarray | None = None) -> Table:
        """Return the same rows in other partitions.

        Args:
            bounds: As for a new table.
            order: Numbers of rows of *this* table; None keeps their order.
        """
        if order is None:
            order = self._order
        elif self._order is not None:
            order = self._order[order]
        return Table(self._base, bounds, order)

    def _visible(self) -> Table:
        names = self._base.column_names
        shown = [name for name in names if not name.startswith(HIDDEN_PREFIX)]
        return self if len(shown) == len(names) else self.select(shown)

    def _rows(self, begin: int, end: int) -> pa.Table:
        import pyarrow as pa

        if self._order is None:
            return self._base.slice(begin, end - begin)
        return pa.Table.from_batches(gather(self._base, self._order[begin:end]), self._base.schema)

    # -- views --------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return render.as_text(self)

    def _repr_html_(self) -> str:
        return render.as_html(self)

    def _repr_mimebundle_(self, **_kwargs: Any) -> dict[str, str]:
        return {"text/plain": render.as_text(self), "text/html": render.as_html(self)}


class _Gathered:
    """Scattered rows as an Arrow C stream: gathered batch by batch while they are read."""

    def __init__(self, base: pa.Table, order: np.ndarray) -> None:
        self._base, self._order = base, order

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        import pyarrow as pa

        reader = pa.RecordBatchReader.from_batches(self._base.schema, gather(self._base, self._order))
        return reader.__arrow_c_stream__(requested_schema)
