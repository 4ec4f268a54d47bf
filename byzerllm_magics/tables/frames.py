"""DataFrames of any library as Arrow tables, without copying what Arrow can read where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.corpus import is_dataset

from .kinds import kinds

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def is_frame(value: object) -> bool:
    """Whether a variable's value is a DataFrame: pandas, polars, pyarrow, whatever gives an Arrow stream, Ray's too."""
    return (hasattr(value, "__arrow_c_stream__") and not isinstance(value, type)) or is_dataset(value)


def arrow_of(data: Any, name: str = "") -> pa.Table:
    """Return a DataFrame's columns as an Arrow table; the index of a pandas DataFrame is not a column.

    Args:
        data: A pandas or polars DataFrame, an Arrow table, anything with the Arrow C stream, or a Ray Dataset.
        name: What errors call it.

    Raises:
        ByzerError: it is no table, or a column mixes types; the error names the column and the first such row.
    """
    import pyarrow as pa

    called = f"table {name!r}" if name else "the table"
    if isinstance(data, pa.Table):
        return data
    if not is_frame(data):
        raise ByzerError(
            f"{called}: a {type(data).__name__} is not a table",
            do="give a pandas DataFrame, a pyarrow Table or a polars DataFrame",
        )
    if is_dataset(data):
        return pa.concat_tables(data.iter_batches(batch_format="pyarrow"), promote_options="permissive")
    if type(data).__module__.partition(".")[0] == "pandas":
        return _from_pandas(data, called)
    try:
        return pa.table(data)
    except (TypeError, pa.ArrowException):  # a stream of arrays, not of rows: one column without a name
        raise ByzerError(f"{called}: a {type(data).__name__} has no columns", do="make a DataFrame of it") from None


def _from_pandas(frame: Any, called: str) -> pa.Table:
    import pandas as pd
    import pyarrow as pa

    if not isinstance(frame, pd.DataFrame):
        raise ByzerError(f"{called}: a {type(frame).__name__} is not a table", do="to_frame() makes a DataFrame of it")
    twice = [str(column) for column in frame.columns[frame.columns.map(str).duplicated()]]
    if twice:
        raise ByzerError(f"{called} has two columns {twice[0]!r}", do="rename one of them")
    columns = {str(label): _column(frame.iloc[:, k], called) for k, label in enumerate(frame.columns)}
    return pa.table(columns)


def _column(series: pd.Series[Any], called: str) -> pa.ChunkedArray:
    import pyarrow as pa

    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise _mixed_types(series, called, error) from None
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _mixed_types(series: pd.Series[Any], called: str, error: Exception) -> ByzerError:
    """Say which row is the first that does not go with those before it: the shortest beginning that fails."""
    if any(isinstance(value, list | dict) for value in series) and (clash := _nested_clash(series)):
        return ByzerError(f"{called}: {clash}", do="give it one type in all rows")
    fits, fails = 0, len(series)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if _converts(series.iloc[:middle]):
            fits = middle
        else:
            fails = middle
    value, label = series.iloc[fails - 1], str(series.name)
    kind, first = type(value).__name__, type(series.iloc[0]).__name__
    return ByzerError(
        f"{called}, column {label!r}: row {fails - 1} holds {_clipped(repr(value))}, a {kind}"
        + (f", and the rows above hold {first}" if first != kind and fails > 1 else ""),
        where=_clipped(str(error.args[0] if error.args else error), 120),
        do=f"give the column one type, e.g. df[{label!r}] = df[{label!r}].astype(str)",
    )


def _nested_clash(series: pd.Series[Any]) -> str:
    """Return which value inside a nested column is of another kind than one before it; empty: none is."""
    known: dict[str, tuple[str, int]] = {}
    for row, value in enumerate(series):
        for path, kind in kinds(value, str(series.name)):
            first, at = known.setdefault(path, (kind, row))
            if first != kind:
                return f"{path} is {kind} in row {row}, and {first} in row {at}"
    return ""


def _converts(series: pd.Series[Any]) -> bool:
    import pyarrow as pa

    try:
        pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError):
        return False
    return True


def _clipped(text: str, width: int = 40) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
