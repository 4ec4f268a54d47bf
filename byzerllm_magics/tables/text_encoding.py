"""Whether a file is text in the encoding that it is read in, and where it is not."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager

from byzerllm_adapters.errors import ByzerError

from .files import File

_BLOCK = 2**20


@contextmanager
def in_encoding(file: File, encoding: str) -> Iterator[None]:
    """Where reading a file fails because of bytes that are no text, raise the error that says where they are."""
    try:
        yield
    except ByzerError:
        raise
    except ValueError:  # Arrow's and Python's complaints both are
        check_encoding(file, encoding)
        raise


def check_encoding(file: File, encoding: str) -> None:
    """Read a whole file to see whether it is text.

    Raises:
        ByzerError: it is not; the byte's offset in the file and its line.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line = 0, 1
    with file.open() as stream:
        while True:
            block = stream.read(_BLOCK)
            kept, _ = decoder.getstate()  # the beginning of a character that the last block ended in
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                at = offset - len(kept) + error.start
                line += (kept + block)[: error.start].count(b"\n")
                raise _not_text(file, encoding, at, line, error.object[error.start]) from None
            if not block:
                return
            offset += len(block)
            line += text.count("\n")


def _not_text(file: File, encoding: str, at: int, line: int, byte: int) -> ByzerError:
    other = "gbk" if encoding.lower() in ("utf-8", "utf8", "utf_8") else "utf-8"
    return ByzerError(
        f"{file.name} is not {encoding}: byte {at:,} is 0x{byte:02x}",
        where=f"in line {line:,}",
        do=f'say its encoding, e.g. encoding="{other}"',
    )
