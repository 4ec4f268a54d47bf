"""Parquet files."""

from collections.abc import Callable

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byzerllm_magics.tables import compact as compacting
from byzerllm_magics.tables.load import load

Write = Callable[[str, str | bytes], str]
Refused = Callable[..., list[str]]
ROWS = pa.table(
    {
        "n": pa.array([1, None, 3], pa.int32()),
        "text": ["a", "祝", None],
        "nested": [[{"x": 1}], [], None],
        "word": pa.array(["u", "v", "u"]).dictionary_encode(),
    }
)


@pytest.mark.parametrize("buffer", [1, 2**20])
def test_rows_and_types_come_back(write: Write, monkeypatch: pytest.MonkeyPatch, buffer: int) -> None:
    monkeypatch.setattr(compacting, "BUFFER", buffer)
    pq.write_table(ROWS, write("a.parquet", ""), row_group_size=1)
    loaded = load("parquet", "a.parquet").arrow()
    assert loaded.to_pylist() == ROWS.to_pylist()
    assert [str(field.type) for field in loaded.schema][:2] == ["int32", "string"]


def test_the_index_that_pandas_saved_does_not_come_back_as_one(write: Write) -> None:
    pd.DataFrame({"a": [1, 2]}, index=[5, 6]).to_parquet(write("a.parquet", ""))
    frame = load("parquet", "a.parquet").df()
    assert frame.index.tolist() == [0, 1]


def test_numbers_of_several_widths_are_united(write: Write) -> None:
    pq.write_table(pa.table({"n": pa.array([1], pa.int32())}), write("d/a.parquet", ""))
    pq.write_table(pa.table({"n": pa.array([2.5])}), write("d/b.parquet", ""))
    assert load("parquet", "d").arrow()["n"].to_pylist() == [1.0, 2.5]


def test_what_is_no_parquet_file_is_named(write: Write, refused: Refused) -> None:
    lines = refused(load, "parquet", write("a.parquet", "nothing of the kind"))
    assert lines[0] == "ByzerError: a.parquet cannot be read"
    assert "Parquet" in lines[1]
