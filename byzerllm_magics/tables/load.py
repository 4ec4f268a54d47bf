"""``load FORMAT.`PATH` where … as t``: files as a table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.parameters import Parameters, read

from . import load_options, read_csv, read_json, read_parquet, read_text
from .files import File, find
from .table import Table

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Format:
    """How files of a format are read.

    Attributes:
        options: The declaration of what ``where`` takes.
        read: From the files and their options to an Arrow table a file, in order.
    """

    options: type[Parameters]
    read: Callable[[Sequence[File], Any], list[pa.Table]]


FORMATS: Mapping[str, Format] = {
    "text": Format(load_options.TextOptions, read_text.read_text),
    "json": Format(load_options.JsonOptions, read_json.read_json),
    "jsonl": Format(load_options.JsonOptions, read_json.read_json),
    "csv": Format(load_options.CsvOptions, read_csv.read_csv),
    "parquet": Format(load_options.ParquetOptions, read_parquet.read_parquet),
}
"""Every format that `load` knows: a new one is a line here."""


def load(format: str, path: str, options: Mapping[str, object] | None = None) -> Table:
    """Read files as one table, a partition a file.

    Columns that only some files have are NULL in the rows of the others. Folders called ``name=value`` between the
    loaded folder and a file give a column ``name``, as Spark writes them.

    Args:
        format: text, json (or jsonl), csv or parquet.
        path: A file, a folder or a glob; see `files.find`.
        options: Spark's options as text, names in any case; `load_options` declares them.

    Raises:
        ParameterError: an unknown option or a wrong value.
        ByzerError: an unknown format; no file; a file that cannot be read, with its name, the line where known.
    """
    known, settings = read_options(format, options or {})
    files = find(path)
    tables = [_with_folder_columns(t, file) for t, file in zip(known.read(files, settings), files, strict=True)]
    bounds = accumulate((table.num_rows for table in tables), initial=0)
    return Table(_united(tables, files), list(bounds))


def read_options(format: str, options: Mapping[str, object]) -> tuple[Format, Parameters]:
    """Return a format and its options, checked; no file is looked for.

    Raises:
        ParameterError: an unknown option or a wrong value.
        ByzerError: an unknown format.
    """
    known = FORMATS.get(format.lower())
    if known is None:
        near = difflib.get_close_matches(format.lower(), FORMATS, n=1)
        raise ByzerError(
            f"load cannot read {format!r}",
            where=f"formats: {', '.join(FORMATS)}",
            do=f"did you mean {near[0]}?" if near else f"convert the files to one of {', '.join(FORMATS)}",
        )
    return known, read(known.options, _as_declared(known.options, options))


def _as_declared(declaration: type[Parameters], options: Mapping[str, object]) -> dict[str, object]:
    """Return the options as their declaration spells them, as far as they are known."""
    declared = {spelling.lower(): spelling for spelling in load_options.spellings(declaration)}
    return {declared.get(name.lower(), name): value for name, value in options.items()}


def _with_folder_columns(table: pa.Table, file: File) -> pa.Table:
    """Add what the folders called ``name=value`` say, whole numbers as such; a column of the file itself wins."""
    import pyarrow as pa

    for name, value in file.keys.items():
        if name not in table.column_names:
            number = value is not None and value.lstrip("-").isdecimal()
            column = pa.repeat(pa.scalar(value), table.num_rows)
            table = table.append_column(name, column.cast(pa.int64()) if number else column)
    return table


def _united(tables: Sequence[pa.Table], files: Sequence[File]) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.concat_tables(tables, promote_options="permissive").unify_dictionaries()
    except pa.ArrowException:
        raise _clash(tables, files) from None


def _clash(tables: Sequence[pa.Table], files: Sequence[File]) -> ByzerError:
    """Name the first column that has two types, and the files."""
    import pyarrow as pa

    seen: dict[str, tuple[pa.DataType, File]] = {}
    for table, file in zip(tables, files, strict=True):
        for field in table.schema:
            before, where = seen.setdefault(field.name, (field.type, file))
            try:
                pa.unify_schemas([pa.schema({field.name: before}), pa.schema([field])], promote_options="permissive")
            except pa.ArrowException:
                return ByzerError(
                    f"column {field.name!r} is {before} in {where.name} and {field.type} in {file.name}",
                    do="load them by two statements, and cast the column before you unite them",
                )
    raise AssertionError("tables that go together two by two go together")
