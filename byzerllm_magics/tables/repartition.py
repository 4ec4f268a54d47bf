"""``run t as TableRepartition``: the same rows in other partitions."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from byzerllm_adapters.errors import ByzerError

from .table import Table

if TYPE_CHECKING:
    import numpy as np

BATCH_ROWS = 2**17
"""Rows that are sorted at once: a few of their numbers, 8 bytes each, are there meanwhile."""

_SQL_INTEGERS = {1: "utinyint", 2: "usmallint", 4: "uinteger", 8: "ubigint"}
"""By bytes."""


def repartition(table: Table, partition_num: int | None = None, partition_cols: Sequence[str] = ()) -> Table:
    """Return the rows of a table in other partitions, without copying them.

    With columns, rows that are equal in all of them come into the same partition, today and in another process, and
    keep their order; some partitions may stay empty. Without, the partitions are consecutive and differ by one row at
    most.

    Args:
        table: Any table.
        partition_num: How many partitions; None: as many as there are.
        partition_cols: Names of columns, in any case.

    Raises:
        ByzerError: there is no such column (the nearest), or ``partition_num`` is less than 1.
    """
    number = table.partitions if partition_num is None else partition_num
    if number < 1:
        raise ByzerError(f"partitionNum={number}", do="give 1 or more partitions")
    if not partition_cols:
        return table.regrouped([k * table.num_rows // number for k in range(number + 1)])
    columns = [_column(table, name) for name in partition_cols]
    return _grouped(table, _numbers_of_partitions(table.select(columns), number), number)


def _column(table: Table, name: str) -> str:
    names = table.column_names
    alike = [known for known in names if known == name] or [known for known in names if known.lower() == name.lower()]
    if alike:
        return alike[0]
    near = difflib.get_close_matches(name, names, n=1)
    raise ByzerError(
        f"no column {name!r}",
        where=f"columns: {', '.join(names[:12])}",
        do=f'did you mean "{near[0]}"?' if near else "choose among the columns",
    )


def _numbers_of_partitions(keys: Table, number: int) -> np.ndarray:
    """Return for each row which partition it belongs to: DuckDB's hash of its values, modulo the number.

    The hash depends on values and types alone: not on the process, the machine or the other rows.
    """
    import numpy as np

    from .engine import connection

    names = [f"k{k}" for k in range(len(keys.column_names))]
    kind = np.min_scalar_type(number - 1)
    partition_of = np.empty(keys.num_rows, kind)
    filled = 0
    with connection({"keys": keys.scannable()}) as duck:
        values, integer = ", ".join(names), _SQL_INTEGERS[kind.itemsize]
        query = f"select cast(hash({values}) % {number} as {integer}) from keys k({values})"
        for batch in duck.sql(query).to_arrow_reader(BATCH_ROWS):
            partition_of[filled : filled + batch.num_rows] = batch.column(0).to_numpy()
            filled += batch.num_rows
    return partition_of


def _grouped(table: Table, partition_of: np.ndarray, number: int) -> Table:
    """Sort the rows' numbers by partition, a batch after the other: each partition's place is known beforehand."""
    import numpy as np

    rows = len(partition_of)
    batches = [slice(begin, begin + BATCH_ROWS) for begin in range(0, rows, BATCH_ROWS)]
    counts = [np.bincount(partition_of[batch], minlength=number) for batch in batches]
    bounds = np.concatenate([[0], np.cumsum(sum(counts, start=np.zeros(number, np.int64)))])
    order = np.empty(rows, np.min_scalar_type(max(0, rows - 1)))
    free = bounds[:-1].copy()
    for batch, count in zip(batches, counts, strict=True):
        sorting = np.argsort(partition_of[batch], kind="stable")
        firsts = np.cumsum(count) - count
        order[np.arange(len(sorting)) + np.repeat(free - firsts, count)] = batch.start + sorting
        free += count
    return table.regrouped(bounds.tolist(), order)
