"""Text files: a row a line, or a row a file."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .compact import compact
from .files import File, readable
from .text_encoding import in_encoding

if TYPE_CHECKING:
    import pyarrow as pa

    from .load_options import TextOptions

BLOCK = 4 * 2**20
"""Bytes that are read and split at once."""


def read_text(files: Sequence[File], options: TextOptions) -> list[pa.Table]:
    r"""Return columns ``value`` and ``file`` for each file; ``\n``, ``\r\n`` or ``\r`` ends a line and is left out.

    Raises:
        ByzerError: a file is not in its encoding; the error names the byte.
    """
    read = _whole if options.whole_text else _lines
    tables = []
    for file in files:
        with readable(file.name), in_encoding(file, options.encoding):
            tables.append(read(file, options.encoding))
    return tables


def _whole(file: File, encoding: str) -> pa.Table:
    import pyarrow as pa

    with file.open(encoding) as stream:
        text = stream.read().removeprefix(codecs.BOM_UTF8)
    return pa.table({"value": _strings(text), "file": pa.array([file.url], pa.large_string())})


def _lines(file: File, encoding: str) -> pa.Table:
    """Return a row a line; the file's name is kept once, as an Arrow dictionary."""
    import pyarrow as pa

    names = pa.dictionary(pa.int32(), pa.large_string())
    schema = pa.schema({"value": pa.large_string(), "file": names})

    def batches() -> Iterator[pa.RecordBatch]:
        for block in _blocks(file, encoding):
            lines = _split(block)
            name = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), len(lines)), [file.url])
            yield pa.RecordBatch.from_arrays([lines, name.cast(names)], schema=schema)

    return compact(batches(), schema)


def _blocks(file: File, encoding: str) -> Iterator[bytes]:
    """Yield a file in pieces that end where a line ends."""
    begun: list[bytes] = []
    first = True
    with file.open(encoding) as stream:
        while block := stream.read(BLOCK):
            block = block.removeprefix(codecs.BOM_UTF8) if first else block
            first = False
            end = block.rfind(b"\n") + 1 or block.rfind(b"\r", 0, -1) + 1
            if end:
                yield b"".join([*begun, block[:end]])
                begun = []
            begun.append(block[end:])
    if rest := b"".join(begun):
        yield rest


def _split(block: bytes) -> pa.LargeStringArray:
    """Return the lines of a block, which may end with a line end."""
    import pyarrow.compute as pc

    if b"\r" in block:
        ends = b"\r\n" if block.endswith(b"\r\n") else block[-1:].strip(b"\x00")
        block = block.removesuffix(ends) if ends in (b"\r\n", b"\n", b"\r") else block
        return pc.split_pattern_regex(_strings(block), r"\r\n|\n|\r").flatten()
    return pc.split_pattern(_strings(block.removesuffix(b"\n")), "\n").flatten()


def _strings(text: bytes) -> pa.LargeStringArray:
    """Return an array of one text; Arrow checks that it is UTF-8."""
    import pyarrow as pa

    return pa.array([text], pa.large_binary()).cast(pa.large_string())
