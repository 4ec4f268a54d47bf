"""Rows that do not fit: the first is the job's error, or each is left out and counted (``on_bad_row``)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from byzerllm_adapters.errors import ByzerError

from .data_files import Row, values_of
from .job_folder import Record

T = TypeVar("T")


class BadRows:
    """Counts the rows of a job that do not fit, or lets the first of them end it.

    Args:
        drop: Whether they are left out.
    """

    def __init__(self, *, drop: bool) -> None:
        self._drop, self._count = drop, 0
        self._first: ByzerError | None = None

    def convert(
        self, rows: Iterable[Row], convert: Callable[[Mapping[str, Any]], T], format: str
    ) -> Iterator[T | None]:
        """Yield what each row becomes; None: it was dropped.

        Raises:
            ByzerError: a row does not fit, with its place and the reason; or none of many does.
        """
        total, dropped = 0, 0
        for row in rows:
            total += 1
            try:
                found = convert(values_of(row))
            except ByzerError as error:
                told = ByzerError(error.what, where=f"{row.place} (format {format})", do=error.do)
                if not self._drop:
                    raise told from None
                self._first = self._first or told
                dropped += 1
                self._count += 1
                yield None
            else:
                yield found
        if dropped and dropped == total:
            assert self._first is not None
            raise ByzerError(
                f"none of {total:,} rows fits; the first: {self._first.what}",
                where=self._first.where,
                do=self._first.do,
            )

    def counts(self) -> Record:
        """Return what the ``prepared`` event says of dropped rows; nothing where there are none."""
        if self._first is None:
            return {}
        return {"rows_dropped": self._count, "first_dropped": f"{self._first.where}: {self._first.what}"}


def check_rows(rows: Iterable[Row], convert: Callable[[Mapping[str, Any]], object], format: str, *, drop: bool) -> None:
    """Refuse rows of which one does not fit, or where such are dropped, of which none does.

    Raises:
        ByzerError: as of `BadRows.convert`.
    """
    found = BadRows(drop=drop).convert(rows, convert, format)
    if drop:
        next((row for row in found if row is not None), None)
    else:
        deque(found, maxlen=0)
