r"""How a CSV file writes a quote within quotes: doubled, as most programs do (RFC 4180), or with a backslash before it.

Spark's default is the backslash, and a file may hold backslashes that mean nothing: ``"C:\"`` is a whole field where
quotes are doubled, and so is JSON with quotes in its texts. A file is read with doubled quotes unless it cannot be.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .files import File

if TYPE_CHECKING:
    import pyarrow as pa

    from .load_options import CsvOptions

_BLOCK = 2**20


def with_escape_of(file: File, options: CsvOptions) -> CsvOptions:
    """Return the options as they hold for a file: with what takes a quote's meaning away in it, or nothing."""
    chosen = "escape" in options.model_fields_set
    doubled = not options.quote or options.escape == options.quote or not (chosen or _is_escaped(file, options))
    escape = "" if doubled else options.escape
    return options.model_copy(update={"escape": escape})


def opened(file: File, options: CsvOptions) -> pa.NativeFile:
    """Return a file's bytes as a stream in which each escape character that takes no meaning away is doubled.

    Spark takes it for itself there, and Arrow would leave it out.
    """
    import pyarrow as pa

    stream = file.open(options.encoding)
    return pa.TransformInputStream(stream, _Doubled(options)) if options.escape else stream


def records(file: File, options: CsvOptions, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line that it begins in.

    Args:
        file: The file.
        options: As they hold for it.
        strict: Whether anything but the end of a field behind a closing quote is an error.

    Raises:
        csv.Error: there is something.
    """
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with opened(file, options) as stream:
            reader = csv.reader(
                io.TextIOWrapper(stream, "utf-8-sig", newline=""),
                delimiter=options.sep,
                quotechar=options.quote or None,
                escapechar=options.escape or None,
                quoting=csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE,
                strict=strict,
            )
            line = 1
            for record in reader:
                yield line, record
                line = reader.line_num + 1
    finally:
        csv.field_size_limit(limit)


def _is_escaped(file: File, options: CsvOptions) -> bool:
    """Whether a file has escaped quotes, and makes no sense with doubled ones."""
    if not _holds(file, options, f"{options.escape}{options.quote}".encode()):
        return False
    plain = options.model_copy(update={"escape": ""})
    width = None
    try:
        for _, record in records(file, plain, strict=True):
            width = width or len(record)
            if len(record) not in (0, width) and any(field.endswith(options.escape) for field in record):
                return True
    except csv.Error:
        return True
    return False


def _holds(file: File, options: CsvOptions, wanted: bytes) -> bool:
    """Whether these bytes, two of them, are anywhere in a file."""
    last = b""
    with file.open(options.encoding) as stream:
        while block := stream.read(_BLOCK):
            if wanted in last + block:
                return True
            last = block[-1:]
    return False


class _Doubled:
    """Doubles the escape characters that stand before anything but a quote or their like, block by block."""

    def __init__(self, options: CsvOptions) -> None:
        self._escape = options.escape.encode()
        either = re.escape(self._escape + options.quote.encode())
        self._pieces = re.compile(re.escape(self._escape) + b"([" + either + b"])?")
        self._held = b""

    def __call__(self, buffer: Any) -> bytes:
        block = self._held + bytes(buffer)
        alone = (len(block) - len(block.rstrip(self._escape))) % 2 == 1
        self._held = self._escape if alone and len(buffer) else b""  # what it stands before comes with the next block
        whole = block[: len(block) - len(self._held)]
        return self._pieces.sub(lambda piece: piece[0] if piece[1] else 2 * self._escape, whole)
