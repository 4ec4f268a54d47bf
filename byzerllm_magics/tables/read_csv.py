"""CSV files, read block by block."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .blocks import with_blocks
from .compact import compact
from .csv_escapes import opened, records, with_escape_of
from .files import File, readable
from .text_encoding import check_encoding, in_encoding

if TYPE_CHECKING:
    import pyarrow as pa

    from .load_options import CsvOptions

_SMALL = 2**16
"""Bytes of a file that is read whole before it is parsed."""

_MISFIT = re.compile(r"column #(\d+).*conversion error to (\w+)", re.DOTALL)
_WIDER = ("null", "int64", "double", "bool", "date32", "timestamp", "string")
"""Where a later block does not fit the type of the first, the next of these is tried."""


def read_csv(files: Sequence[File], options: CsvOptions) -> list[pa.Table]:
    """Return the fields of each file as columns; a field that is empty and not quoted is NULL.

    Raises:
        ByzerError: a record has more or fewer fields than the first one, or is no text; its line. A column's name is
            there twice.
    """
    tables = [_read(file, options, set()) for file in files]
    mixed = _mixed([table.schema for table in tables])  # numbers in one file, words in another: text in both
    for k, file in enumerate(files):
        if mixed & set(tables[k].column_names):
            tables[k] = _read(file, options, mixed)
    return tables


def _read(file: File, options: CsvOptions, texts: set[str]) -> pa.Table:
    """Read a file, again with wider types where those of its first block do not fit; ``texts`` stay text."""
    import pyarrow as pa

    with readable(file.name), in_encoding(file, options.encoding):
        options = with_escape_of(file, options)
        first = _schema_of_first_block(file, options)
        names = _names(file, options, first)
        text = [not options.infer_schema or name in texts for name in names]
        types = {f.name: pa.string() if t else f.type for f, t in zip(first, text, strict=True)}
        while True:
            try:
                table = _parsed(file, options, types)
                break
            except pa.ArrowInvalid as error:
                misfit = _MISFIT.search(str(error))
                if misfit is None or misfit[2] == "string":
                    raise _malformed(file, options, len(names), error) from None
                types[first.names[int(misfit[1])]] = _wider(misfit[2])
        return table.rename_columns(names)


def _schema_of_first_block(file: File, options: CsvOptions) -> pa.Schema:
    """Return the columns with the types of their first values; without a line, none."""
    import pyarrow as pa

    def read(block: int) -> pa.Schema:
        with _opened(file, options) as stream:
            return _reader(stream, options, block).schema

    try:
        schema = with_blocks(read)
    except pa.ArrowInvalid as error:
        if str(error) == "Empty CSV file":
            return pa.schema([])
        raise _malformed(file, options, None, error) from None
    if any(pa.types.is_binary(field.type) for field in schema):  # Arrow's type for text that is not UTF-8
        check_encoding(file, options.encoding)
    times = {field.name for field in schema if pa.types.is_time(field.type)}  # a type that Spark does not have
    return pa.schema([field.with_type(pa.string()) if field.name in times else field for field in schema])


def _names(file: File, options: CsvOptions, schema: pa.Schema) -> list[str]:
    """Return Spark's names for columns without one."""
    names = [name if options.header and name else f"_c{k}" for k, name in enumerate(schema.names)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ByzerError(
            f"{file.name} names two columns {twice[0]!r}",
            where=f"line 1: {', '.join(names)}"[:120],
            do='rename one in the file, or leave out header="true"',
        )
    return names


def _parsed(file: File, options: CsvOptions, types: dict[str, pa.DataType]) -> pa.Table:
    import pyarrow as pa

    if not types:
        return pa.table({})

    def read(block: int) -> pa.Table:
        with _opened(file, options) as stream:
            reader = _reader(stream, options, block, types)
            return compact(reader, reader.schema)

    return with_blocks(read)


def _reader(stream: Any, options: CsvOptions, block: int, types: dict[str, pa.DataType] | None = None) -> Any:
    """Return Arrow's reader of batches."""
    from pyarrow import csv as arrow_csv

    return arrow_csv.open_csv(
        stream,
        read_options=arrow_csv.ReadOptions(block_size=block, autogenerate_column_names=not options.header),
        parse_options=arrow_csv.ParseOptions(
            delimiter=options.sep,
            quote_char=options.quote or False,
            double_quote=bool(options.quote),
            escape_char=options.escape or False,
            newlines_in_values=bool(options.quote),
            invalid_row_handler=(lambda _: "skip") if options.mode == "dropmalformed" else None,
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types=types,
            null_values=list({"", options.null_value}),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def _opened(file: File, options: CsvOptions) -> pa.NativeFile:
    """Return the file as a stream; a small one ends with a line end: Arrow overlooks a single line that does not."""
    import pyarrow as pa

    with opened(file, options) as stream:
        beginning: bytes = stream.read(_SMALL)
    if len(beginning) < _SMALL:
        return pa.BufferReader(beginning + b"\n" if beginning.strip() else b"")
    return opened(file, options)


def _wider(name: str) -> pa.DataType:
    """Return the type to try after the one of that name (Arrow's; a timestamp's unit is left out)."""
    import pyarrow as pa

    following = _WIDER[_WIDER.index(name) + 1] if name in _WIDER else "string"
    return pa.timestamp("us") if following == "timestamp" else pa.type_for_alias(following)


def _mixed(schemas: Sequence[pa.Schema]) -> set[str]:
    """Return the names of columns whose types have nothing in common."""
    import pyarrow as pa

    mixed = set()
    for name in {name for schema in schemas for name in schema.names}:
        alone = [pa.schema([schema.field(name)]) for schema in schemas if name in schema.names]
        try:
            pa.unify_schemas(alone, promote_options="permissive")
        except pa.ArrowException:
            mixed.add(name)
    return mixed


def _malformed(file: File, options: CsvOptions, fields: int | None, error: Exception) -> ByzerError:
    """Say which line it is, by reading the file again with a parser that counts them."""
    for line, record in records(file, options):
        fields = len(record) if fields is None else fields
        if record and len(record) != fields:
            return ByzerError(
                f"{file.name}, line {line:,}: {len(record)} fields, and {fields} in the first line",
                where=f"    {options.sep.join(record)}".replace("\n", "⏎")[:100],
                do="correct the line, or say how fields are written: sep, quote, escape",
            )
    return ByzerError(f"{file.name} is not CSV", where=" ".join(str(error).split())[:160])
