"""Reading a file in blocks, where Arrow wants each record within one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

BLOCK = 2**20
"""Bytes of the blocks that are tried first."""

_LARGEST = 2**31 - 1


def with_blocks(read: Callable[[int], T]) -> T:
    """Return what ``read`` does with blocks of so many bytes: larger ones where a record does not fit into one."""
    import pyarrow as pa

    size = BLOCK
    while True:
        try:
            return read(size)
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error) or size == _LARGEST:
                raise
            size = min(8 * size, _LARGEST)
