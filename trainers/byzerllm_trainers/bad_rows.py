"""Rows that do not fit: the first is the job's error, or each is left out and counted (``on_bad_row``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .data_files import values_of
from .parts import Row

OR_DROP = 'leave such rows out: on_bad_row="drop"'


def placed(error: ByzerError, place: str, format: str) -> ByzerError:
    """Return what is wrong with a row, with where it stands and the format that it was read in."""
    return ByzerError(error.what, where=f"{place} (format {format})", do=error.do or f"correct the row, or {OR_DROP}")


def none_fits(rows: int, first: ByzerError) -> ByzerError:
    """Return the error of data of which every row was dropped."""
    do = first.do.removesuffix(f", or {OR_DROP}")
    return ByzerError(f"none of {rows:,} rows fits; the first: {first.what}", where=first.where, do=do)


def check_rows(rows: Iterable[Row], convert: Callable[[Mapping[str, Any]], object], format: str, *, drop: bool) -> None:
    """Look at rows before any is tokenised.

    Args:
        rows: What to look at.
        convert: Raises why a row does not fit.
        format: Theirs.
        drop: Whether such rows are left out; then one that fits is enough, and none behind it is looked at.

    Raises:
        ByzerError: a row does not fit, with its place and the reason, and how many do not; or none of many does.
    """
    total, wrong, first = 0, 0, None
    for row in rows:
        total += 1
        try:
            convert(values_of(row))
        except ByzerError as error:
            wrong, first = wrong + 1, first or placed(error, row.place, format)
        else:
            if drop:
                return
    if first is not None and drop:
        raise none_fits(total, first)
    if first is not None:
        others = f"; so {wrong:,} of {total:,} rows do not fit" if wrong > 1 else ""
        raise ByzerError(first.what + others, where=first.where, do=first.do)
