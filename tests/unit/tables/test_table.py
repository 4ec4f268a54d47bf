"""A table: partitions without copies, hidden columns, what others read of it."""

import re
import subprocess
import sys

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from byzerllm_magics.tables import Table
from byzerllm_magics.tables import gather as gathering
from byzerllm_magics.tables import table as tables

BASE = pa.table(
    {"n": [0, 1, 2, 3, 4], "text": ["a", "b", "c", "d", "e"], "__error_of_answer": [None, "late"] + 3 * [None]}
)


@pytest.fixture
def scattered() -> Table:
    """Rows 4, 0 in a partition, none in the next, 3, 1, 2 in the last."""
    return Table(BASE, [0, 2, 2, 5], np.array([4, 0, 3, 1, 2], np.uint8))


def test_it_has_one_partition_unless_told() -> None:
    table = Table(BASE)
    assert (table.num_rows, len(table), table.partitions) == (5, 5, 1)
    assert [part.num_rows for part in table.parts()] == [5]


def test_partitions_are_slices_of_the_same_memory() -> None:
    parts = list(Table(BASE, [0, 2, 5]).parts())
    assert [part["n"].to_pylist() for part in parts] == [[0, 1], [2, 3, 4]]
    addresses = {part["n"].chunk(0).buffers()[1].address for part in parts}
    assert addresses == {BASE["n"].chunk(0).buffers()[1].address}


def test_scattered_partitions_are_gathered(scattered: Table) -> None:
    assert [part["n"].to_pylist() for part in scattered.parts()] == [[4, 0], [], [3, 1, 2]]
    assert scattered.arrow()["text"].to_pylist() == ["e", "a", "d", "b", "c"]
    assert scattered.arrow().schema == BASE.schema


def test_rows_are_gathered_from_many_chunks_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "BATCH_ROWS", 7)
    base = pa.concat_tables([pa.table({"n": list(range(k, k + 10))}) for k in range(0, 100, 10)])
    order = np.random.default_rng(0).permutation(100).astype(np.uint8)
    batches = list(gathering.gather(base, order))
    assert [n for batch in batches for n in batch["n"].to_pylist()] == order.tolist()
    assert max(batch.num_rows for batch in batches) == 7


def test_long_rows_are_gathered_a_few_at_a_time() -> None:
    base = pa.table({"book": ["x" * 2**20] * 40})
    batches = list(gathering.gather(base, np.arange(40)))
    assert [batch.num_rows for batch in batches] == [15, 15, 10]


def test_regrouping_again_follows_the_rows_as_they_are(scattered: Table) -> None:
    again = scattered.regrouped([0, 1, 5], np.array([2, 0, 1, 3, 4]))
    assert [part["n"].to_pylist() for part in again.parts()] == [[3], [4, 0, 1, 2]]
    assert again.regrouped([0, 5]).arrow() == again.arrow()


@pytest.mark.parametrize("bounds", [[0, 4], [1, 5], [0, 3, 2, 5], []])
def test_bounds_that_do_not_cover_the_rows_are_refused(bounds: list[int]) -> None:
    with pytest.raises(ValueError, match="5 rows are not in partitions"):
        Table(BASE, bounds)


def test_errors_of_model_calls_are_hidden_from_people_and_kept_for_sql(scattered: Table) -> None:
    for table in (Table(BASE), scattered):
        assert table.column_names == table.schema.names == ["n", "text"]
        assert list(table.df().columns) == pa.table(table).column_names == ["n", "text"]
        assert "__error_of_answer" in table.arrow().column_names
        assert "__error_of_answer" in pa.table(table.scannable()).column_names
        assert "__error" not in repr(table) + table._repr_html_()


def test_pandas_pyarrow_and_duckdb_read_it_directly(scattered: Table) -> None:
    assert pa.table(scattered)["n"].to_pylist() == [4, 0, 3, 1, 2]
    assert scattered.df()["n"].tolist() == [4, 0, 3, 1, 2]
    assert pd.DataFrame.from_arrow(scattered)["text"].tolist() == ["e", "a", "d", "b", "c"]
    connection = duckdb.connect()
    connection.register("t", scattered)
    assert connection.sql("select sum(x.n), count(*) from t x join t y using (n)").fetchall() == [(10, 5)]


def test_an_empty_table_can_be_read_and_shown() -> None:
    table = Table(BASE.slice(0, 0), [0, 0, 0])
    assert table.partitions == 2
    assert len(table.df()) == 0
    assert "0 rows · 2 partitions" in repr(table)
    assert "0 rows" in repr(Table(pa.table({})))


def test_nothing_heavy_is_imported_with_the_package() -> None:
    code = (
        "import sys, byzerllm_magics.tables, byzerllm_magics.tables.select\n"
        "print({'pyarrow', 'duckdb', 'sqlglot', 'pandas', 'numpy', 'pydantic'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_a_loop_gives_rows_as_dicts_and_a_name_its_column(scattered: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 2)
    assert list(scattered) == [{"n": n, "text": "abcde"[n]} for n in (4, 0, 3, 1, 2)]
    assert scattered["n"].tolist() == [4, 0, 3, 1, 2]
    assert isinstance(scattered["text"], pd.Series)
    assert scattered["__error_of_answer"].dropna().tolist() == ["late"]
    assert ("n" in scattered, "__error_of_answer" in scattered, "x" in scattered) == (True, False, False)
    pd.testing.assert_frame_equal(pd.DataFrame(scattered), scattered.df())


@pytest.mark.parametrize(("name", "hint"), [("txt", "did you mean 'text'?"), ("zzz", "columns: n, text"), (0, "df()")])
def test_a_column_that_is_not_there_is_a_key_error_with_the_nearest(name: object, hint: str) -> None:
    with pytest.raises(KeyError, match=re.escape(hint)):
        Table(BASE)[name]  # type: ignore[index]
