"""Rows that do not fit: the first is the job's error, or each is left out and counted (``on_bad_row``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .data_files import values_of
from .parts import Row


def placed(error: ByzerError, place: str, format: str) -> ByzerError:
    """Return what is wrong with a row, with where it stands and the format that it was read in."""
    return ByzerError(error.what, where=f"{place} (format {format})", do=error.do)


def none_fits(rows: int, first: ByzerError) -> ByzerError:
    """Return the error of data of which every row was dropped."""
    return ByzerError(f"none of {rows:,} rows fits; the first: {first.what}", where=first.where, do=first.do)


def check_rows(rows: Iterable[Row], convert: Callable[[Mapping[str, Any]], object], format: str, *, drop: bool) -> None:
    """Look at rows before any is tokenised.

    Args:
        rows: What to look at.
        convert: Raises why a row does not fit.
        format: Theirs.
        drop: Whether such rows are left out; then one that fits is enough, and none behind it is looked at.

    Raises:
        ByzerError: a row does not fit, with its place and the reason; or none of many does.
    """
    total, first = 0, None
    for row in rows:
        total += 1
        try:
            convert(values_of(row))
        except ByzerError as error:
            told = placed(error, row.place, format)
            if not drop:
                raise told from None
            first = first or told
        else:
            if drop:
                return
    if first is not None:
        raise none_fits(total, first)
