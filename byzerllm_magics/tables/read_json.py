"""JSON files: an object a line, or one list of objects."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .blocks import with_blocks
from .files import File, readable
from .kinds import kind_of, kinds
from .text_encoding import in_encoding

if TYPE_CHECKING:
    import pyarrow as pa

    from .load_options import JsonOptions


def read_json(files: Sequence[File], options: JsonOptions) -> list[pa.Table]:
    """Return the keys of each file's objects as columns, nested values nested. Text that looks like a date stays text.

    Raises:
        ByzerError: a line is not a JSON object, or a key holds values of different types; its line or number.
    """
    tables = []
    for file in files:
        with readable(file.name), in_encoding(file, options.encoding):
            tables.append(_read(file, options))
    return tables


def _read(file: File, options: JsonOptions) -> pa.Table:
    import pyarrow as pa

    unit, opened = "line", partial(file.open, options.encoding)
    if _begins_with_a_list(file, options.encoding):
        rows = _items(file, options.encoding)
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode("utf-8", "surrogatepass")
        unit, opened = "object", partial(pa.BufferReader, text)
    try:
        table = _parsed(opened, several_lines=options.multi_line)
        table.validate(full=True)  # Arrow's parser takes bytes that are no text
    except pa.ArrowInvalid as error:
        raise _malformed(file, opened, unit, error) from error
    return table


def _begins_with_a_list(file: File, encoding: str) -> bool:
    with file.open(encoding) as stream:
        beginning: bytes = stream.read(2**16)
    return beginning.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _items(file: File, encoding: str) -> list[Any]:
    """Return what the list of a file holds."""
    with file.open(encoding) as stream:
        text = stream.read().decode("utf-8-sig")
    try:
        items: list[Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise ByzerError(f"{file.name}, line {error.lineno:,}, column {error.colno}: {error.msg}") from None
    return items


def _parsed(opened: Callable[[], Any], *, several_lines: bool) -> pa.Table:
    """Let Arrow find columns and types; dates only to turn them into text again, which takes another reading."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    def parsed_as(schema: pa.Schema | None) -> pa.Table:
        options = arrow_json.ParseOptions(explicit_schema=schema, newlines_in_values=several_lines)

        def read(block: int) -> pa.Table:
            with opened() as stream:
                return arrow_json.read_json(stream, arrow_json.ReadOptions(block_size=block), options)

        return with_blocks(read)

    try:
        table = parsed_as(None)
        plain = pa.schema([field.with_type(_without_times(field.type)) for field in table.schema])
        return table if plain == table.schema else parsed_as(plain)
    except pa.ArrowInvalid as error:
        if "Empty JSON file" in str(error):
            return pa.table({})
        raise


def _without_times(kind: pa.DataType) -> pa.DataType:
    """Return a type with text in the place of timestamps, however deep."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_times(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_times(field.type)) for field in kind])
    return kind


def _malformed(file: File, opened: Callable[[], Any], unit: str, error: Exception) -> ByzerError:
    """Say which object it is, by reading them again one after another."""
    known: dict[str, tuple[str, int]] = {}
    with opened() as stream:
        for number, line in enumerate(io.TextIOWrapper(stream, "utf-8-sig"), 1):
            place = f"{file.name}, {unit} {number:,}"
            shown = f"    {line.strip()}"[:100]
            try:
                value = json.loads(line) if line.strip() else {}
            except json.JSONDecodeError as problem:
                open_ended = unit == "line" and line.strip().endswith(("{", "[", ","))
                do = 'multiLine="true" reads objects over several lines' if open_ended else "write one object a line"
                return ByzerError(f"{place}, column {problem.colno}: {problem.msg}", where=shown, do=do)
            if not isinstance(value, dict):
                return ByzerError(f"{place} holds {kind_of(value)}, not an object", where=shown)
            for path, kind in kinds(value):
                first, at = known.setdefault(path, (kind, number))
                if first != kind:
                    what = f"{place}: {path} is {kind}, and {first} in {unit} {at:,}"
                    return ByzerError(what, where=shown, do="give the key one type in all rows")
    return ByzerError(f"{file.name} cannot be read as JSON", where=" ".join(str(error).split())[:160])
