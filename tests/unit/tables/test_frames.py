"""DataFrames of any library as Arrow tables."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.tables.frames import arrow_of, is_frame


class Polars:
    """What polars has in common with every other library: Arrow's C stream."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return pa.table({"a": [1, 2]}).__arrow_c_stream__(requested_schema)


def test_numbers_of_pandas_are_not_copied() -> None:
    frame = pd.DataFrame({"a": np.arange(1_000), "b": np.arange(1_000) / 3})
    for name, column in zip(("a", "b"), arrow_of(frame).columns, strict=True):
        assert column.chunk(0).buffers()[1].address == frame[name].to_numpy().__array_interface__["data"][0]


def test_the_index_is_no_column() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="key"))
    assert arrow_of(frame).to_pydict() == {"a": [1, 2]}


def test_nan_and_none_are_null_and_names_are_text() -> None:
    assert arrow_of(pd.DataFrame({0: [1.0, float("nan")], "s": ["x", None]})).to_pydict() == {
        "0": [1.0, None],
        "s": ["x", None],
    }


def test_whatever_has_an_arrow_stream_is_a_frame() -> None:
    assert is_frame(Polars())
    assert not is_frame(Polars)
    assert arrow_of(Polars()).to_pydict() == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("values", "row"),
    [(["a", "b", 3], 2), ([1, 2, "x", "y"], 2), ([object()], 0), ([1] * 700 + ["z"], 700)],
)
def test_a_column_of_several_types_is_named_with_its_first_such_row(values: list[Any], row: int) -> None:
    with pytest.raises(ByzerError, match=rf"table 'df', column 'x': row {row} holds ") as caught:
        arrow_of(pd.DataFrame({"ok": range(len(values)), "x": pd.Series(values, dtype=object)}), "df")
    assert len(caught.value.render()) <= 5
    assert "df['x'].astype(str)" in caught.value.do


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([[{"a": 1}], [{"a": 2}, {"a": "x"}]], r"x\[\].a is text in row 1, and a number in row 0"),
        ([[{"a": None}], "none"], "x is text in row 1, and a list in row 0"),
        ([[{"a": "b"}, {"a": ["c"]}]], r"x\[\].a is a list in row 0, and text in row 0"),
    ],
)
def test_a_nested_column_of_several_types_is_named_with_the_path_of_the_value(values: list[Any], what: str) -> None:
    with pytest.raises(ByzerError, match=f"table 'df': {what}") as caught:
        arrow_of(pd.DataFrame({"x": pd.Series(values, dtype=object)}), "df")
    assert caught.value.do == "give it one type in all rows"


@pytest.mark.parametrize(
    ("data", "what", "do"),
    [
        (7, "a int is not a table", "give a pandas DataFrame"),
        (pd.Series([1]), "a Series is not a table", "to_frame()"),
        (pa.chunked_array([[1]]), "a ChunkedArray has no columns", "make a DataFrame"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns 'a'", "rename one"),
    ],
)
def test_what_is_no_table_says_so(data: Any, what: str, do: str) -> None:
    with pytest.raises(ByzerError) as caught:
        arrow_of(data)
    assert what in caught.value.what
    assert do in caught.value.do
