"""`tables`: the memory that tables take, and what `select` costs over DuckDB.

Memory: a process that has imported everything loads 10⁷ rows (whole numbers, doubles, words, short texts), cuts them
into 24 partitions, then into 24 others by a column. Its peak resident memory, less what it held before, over the size
of the rows in Arrow's memory. Fair, because nothing is left out: file buffers, the parser's blocks and DuckDB's work
count. Each measurement is a process of its own; Linux only, since the peak is the kernel's own count (VmHWM).

select: three queries over 10⁶ rows of an Arrow table (grouping; texts put together; a sort of a part), ours in Spark's
dialect from text to Arrow result, against the same queries in DuckDB's own dialect, run by DuckDB over the same memory
with the same threads, also from text to Arrow result. Results are compared once, then both are measured in turn.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from measure import Figure, interleaved, ratio_of_medians

if TYPE_CHECKING:
    import pyarrow as pa

SMOKE = {"rows": 100_000, "rounds": 1, "rows_selected": 10_000, "select_rounds": 2}
PARTITIONS = 24
CHUNK = 1_000_000
OPTIONS = {"parquet": {}, "csv": {"header": "true", "inferSchema": "true"}}
QUERIES = (
    (
        "select kind, count(*) as n, max(score) as best from t where score > 0.5 group by kind order by kind",
        "select kind, count(*) as n, max(score) as best from t where score > 0.5 group by kind order by kind",
    ),
    (
        "select id, concat(kind, ': ', text) as prompt, length(text) as l from t where text like '%7%'",
        "select id, kind || ': ' || text as prompt, length(text) as l from t where text like '%7%'",
    ),
    (
        "select * from t where id % 10 = 0 order by score desc",
        "select * from t where id % 10 = 0 order by score desc nulls last",
    ),
)


def measure(
    work: Path, rows: int = 10_000_000, rounds: int = 3, rows_selected: int = 1_000_000, select_rounds: int = 15
) -> list[Figure]:
    """About two minutes, and 900 MB of disk."""
    return [*_memory(work, rows, rounds), _select(rows_selected, select_rounds)]


# -- memory -----------------------------------------------------------------------------------------------


def _memory(work: Path, rows: int, rounds: int) -> list[Figure]:
    paths = _written(work, rows)
    measured = interleaved({name: partial(_in_a_new_process, name, path) for name, path in paths.items()}, rounds)
    figures = []
    for name, results in measured.items():
        raw = {"peak_mib": [peak for peak, _ in results], "arrow_mib": [size for _, size in results]}
        ratios = [peak / size for peak, size in results]
        figures.append(Figure(f"tables_{name}_memory", median(ratios), "ratio", raw, at_most=1.3))
    return figures


def _written(work: Path, rows: int) -> dict[str, Path]:
    """Write the same rows as Parquet and as CSV, a million at a time."""
    import pyarrow.csv as arrow_csv
    import pyarrow.parquet as pq

    paths = {"parquet": work / "rows.parquet", "csv": work / "rows.csv"}
    schema = _rows(0, 1).schema
    with pq.ParquetWriter(paths["parquet"], schema) as parquet, arrow_csv.CSVWriter(paths["csv"], schema) as csv:
        for begin in range(0, rows, CHUNK):
            chunk = _rows(begin, min(CHUNK, rows - begin))
            parquet.write_table(chunk)
            csv.write_table(chunk)
    return paths


def _rows(begin: int, number: int) -> pa.Table:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rng = np.random.default_rng(begin)
    ids = pa.array(np.arange(begin, begin + number))
    kinds = pc.binary_join_element_wise("kind", pa.array(rng.integers(0, 30, number)).cast(pa.string()), " ")
    texts = pc.binary_join_element_wise("question", ids.cast(pa.string()), "of", kinds, " ")
    return pa.table({"id": ids, "score": rng.random(number), "kind": kinds, "text": texts})


def _in_a_new_process(name: str, path: Path) -> tuple[float, float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_peak, name, path).result()


def _peak(name: str, path: Path) -> tuple[float, float]:
    """Return the peak above what was held before, and the rows' size in Arrow, in MiB."""
    for library in ("duckdb", "numpy", "pandas", "pyarrow.csv", "pyarrow.parquet"):
        importlib.import_module(library)
    from byzerllm_magics.tables.load import load
    from byzerllm_magics.tables.repartition import repartition

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = _status("VmRSS")
    table = load(name, str(path), OPTIONS[name])
    parted = repartition(repartition(table, PARTITIONS), PARTITIONS, ["kind"])
    peak = _status("VmHWM")
    assert (parted.partitions, parted.num_rows) == (PARTITIONS, table.num_rows)
    return peak - before, table.arrow().nbytes / 2**20


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


# -- select -----------------------------------------------------------------------------------------------


def _select(rows: int, rounds: int) -> Figure:
    import duckdb

    from byzerllm_magics.tables import Catalog, Table
    from byzerllm_magics.tables.select import parse_query, run_query

    table = _rows(0, rows)
    catalog = Catalog()
    catalog["t"] = Table(table)
    connection = duckdb.connect(config={"threads": len(os.sched_getaffinity(0))})
    connection.register("t", table)

    def ours() -> list[pa.Table]:
        return [run_query(parse_query(spark, {}.get), catalog.table).arrow() for spark, _ in QUERIES]

    def theirs() -> list[pa.Table]:
        return [connection.sql(duck).to_arrow_table() for _, duck in QUERIES]

    for one, other in zip(ours(), theirs(), strict=True):
        assert one.cast(other.schema).equals(other), "the two sides do not answer alike"
    seconds = interleaved({"ours": partial(_timed, ours), "duckdb": partial(_timed, theirs)}, rounds)
    return Figure(
        "select_over_duckdb", ratio_of_medians(seconds["ours"], seconds["duckdb"]), "ratio", seconds, at_most=1.2
    )


def _timed(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
