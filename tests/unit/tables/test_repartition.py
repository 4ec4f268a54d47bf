"""The same rows in other partitions."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from byzerllm_magics.tables import Table
from byzerllm_magics.tables import repartition as repartitioning
from byzerllm_magics.tables.repartition import repartition

Refused = Callable[..., list[str]]
ROWS = 1_000


@pytest.fixture
def table() -> Table:
    rng = np.random.default_rng(0)
    words = pa.array([None if k == 0 else f"file {k}" for k in rng.integers(0, 10, ROWS)])
    return Table(pa.table({"n": range(ROWS), "file": words, "k": rng.integers(0, 3, ROWS)}), [0, 600, ROWS])


def sizes(table: Table) -> list[int]:
    return [part.num_rows for part in table.parts()]


@pytest.mark.parametrize(("rows", "number"), [(1_000, 24), (10, 3), (2, 5), (0, 2), (5, 1)])
def test_without_columns_partitions_differ_by_a_row_at_most(rows: int, number: int) -> None:
    parted = repartition(Table(pa.table({"n": range(rows)})), number)
    assert len(sizes(parted)) == number
    assert max(sizes(parted)) - min(sizes(parted)) <= 1
    assert parted.arrow()["n"].to_pylist() == list(range(rows))


def test_equal_values_share_a_partition_and_rows_keep_their_order(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repartitioning, "BATCH_ROWS", 64)
    parted = repartition(table, 24, ["file"])
    assert parted.partitions == 24
    where: dict[object, set[int]] = {}
    for k, part in enumerate(parted.parts()):
        assert part["n"].to_pylist() == sorted(part["n"].to_pylist())
        for value in set(part["file"].to_pylist()):
            where.setdefault(value, set()).add(k)
    assert len(where) == 10
    assert all(len(partitions) == 1 for partitions in where.values())
    assert sorted(parted.arrow()["n"].to_pylist()) == list(range(ROWS))


def test_several_columns_count_together(table: Table) -> None:
    parted = repartition(table, 8, ["file", "k"])
    pairs = Counter()
    for part in parted.parts():
        pairs.update(set(zip(part["file"].to_pylist(), part["k"].to_pylist(), strict=True)))
    assert len(pairs) == 30
    assert set(pairs.values()) == {1}


def test_unique_values_are_spread_evenly(table: Table) -> None:
    counts = sizes(repartition(table, 4, ["n"]))
    assert sum(counts) == ROWS
    assert min(counts) > ROWS / 4 * 0.8


def test_the_number_stays_unless_given(table: Table) -> None:
    assert repartition(table).partitions == 2
    assert repartition(table, partition_cols=["k"]).partitions == 2
    assert sizes(repartition(table)) == [500, 500]


def test_rows_are_not_copied(table: Table) -> None:
    address = table.arrow()["n"].chunk(0).buffers()[1].address
    assert [part["n"].chunk(0).buffers()[1].address for part in repartition(table, 3).parts()] == [address] * 3
    by_column = repartition(table, 3, ["k"])
    assert by_column._base["n"].chunk(0).buffers()[1].address == address
    assert by_column._order is not None
    assert by_column._order.dtype == np.uint16


def test_a_repartitioned_table_can_be_repartitioned_again(table: Table) -> None:
    once = repartition(table, 5, ["file"])
    again = repartition(once, 3, ["k"])
    assert again.arrow().num_rows == ROWS
    order = once.arrow()["n"].to_pylist()
    for part in again.parts():
        positions = [order.index(n) for n in part["n"].to_pylist()]
        assert positions == sorted(positions)
    assert repartition(again, 7).arrow() == again.arrow()


def test_partitions_are_the_same_in_another_process() -> None:
    code = (
        "import pyarrow as pa; from byzerllm_magics.tables import Table\n"
        "from byzerllm_magics.tables.repartition import repartition\n"
        "t = Table(pa.table({'s': [f'word {k}' for k in range(50)], 'x': [k / 7 for k in range(50)]}))\n"
        "print([part['s'].to_pylist() for part in repartition(t, 4, ['s', 'x']).parts()])"
    )
    ours, theirs = (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    )
    assert ours == theirs


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1], [2], [1], None], pa.list_(pa.int64())),
        pa.array([{"a": 1}, {"a": 2}, {"a": 1}, None]),
        pa.array(["a", "b", "a", None]).dictionary_encode(),
        pa.array([0.0, 1.0, -0.0, None]),
        pa.array([b"x", b"y", b"x", None]),
        pa.array([True, False, True, None]),
    ],
    ids=lambda values: str(values.type),
)
def test_columns_of_any_type_can_be_used(values: pa.Array) -> None:
    parted = repartition(Table(pa.table({"n": range(4), "v": values})), 50, ["v"])
    [together] = [part["n"].to_pylist() for part in parted.parts() if 0 in part["n"].to_pylist()]
    assert 2 in together


def test_columns_are_found_in_any_case(table: Table) -> None:
    assert sizes(repartition(table, 5, ["FILE"])) == sizes(repartition(table, 5, ["file"]))


@pytest.mark.parametrize("number", [0, -1])
def test_there_is_at_least_one_partition(table: Table, refused: Refused, number: int) -> None:
    assert refused(repartition, table, number) == [f"ByzerError: partitionNum={number}", "→ give 1 or more partitions"]


def test_an_unknown_column_names_the_nearest(table: Table, refused: Refused) -> None:
    assert refused(repartition, table, 2, ["fil"]) == [
        "ByzerError: no column 'fil'",
        "columns: n, file, k",
        '→ did you mean "file"?',
    ]
