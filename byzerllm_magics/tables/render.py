"""The first rows of a table, as text and as HTML of a few kB."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from ..language.errors import display_width

if TYPE_CHECKING:
    import pyarrow as pa

    from .table import Table

ROWS = 20
COLUMNS = 12
CHARACTERS = 3000
"""Of all cells together: few columns show long texts, many columns short ones."""

WIDEST, NARROWEST = 120, 8

_DAY = 24 * 3600 * 10**9
"""Nanoseconds."""


def as_text(table: Table) -> str:
    """Return the first rows in columns, below them what there is in all."""
    names, rows = _cells(table)
    widths = [max(map(display_width, column)) for column in zip(names, *rows, strict=True)]
    lines = [
        "  ".join(cell + " " * (width - display_width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in ([names, *rows] if names else [])
    ]
    return "\n".join([*lines, _summary(table)])


def as_html(table: Table) -> str:
    """Return the first rows as an HTML table, numbers at the right; colours are the page's own, light or dark."""
    names, rows = _cells(table)
    sides = _sides(table)
    head = "".join(f"<th{side}>{_escaped(name)}</th>" for name, side in zip(names, sides, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{side}>{_escaped(cell)}</td>' for cell, side in zip(row, sides, strict=True))}</tr>"
        for row in rows
    )
    columns = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if names else ""
    return f'<div class="tex2jax_ignore mathjax_ignore">{columns}<small>{_escaped(_summary(table))}</small></div>'


def _sides(table: Table) -> list[str]:
    """Return a style for each column that is shown: pages put all cells of a table at the right."""
    import pyarrow as pa

    def is_number(kind: pa.DataType) -> bool:
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))

    shown = list(table.schema)[:COLUMNS]
    return ["" if is_number(field.type) else ' style="text-align:left"' for field in shown]


def _summary(table: Table) -> str:
    rows, partitions = table.num_rows, table.partitions
    parts = [
        f"{rows:,} row{'s' * (rows != 1)}" + (f", the first {ROWS} shown" if rows > ROWS else ""),
        f"{partitions:,} partition{'s' * (partitions != 1)}",
    ]
    hidden = table.column_names[COLUMNS:]
    if hidden:
        named = ", ".join(_clipped(name, 20) for name in hidden[:COLUMNS])
        parts.append(f"{len(hidden)} more columns: {named}{', …' * (len(hidden) > COLUMNS)}")
    return " · ".join(parts)


def _cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Return the column names and the cells of the first rows, row by row, all clipped."""
    head = table.head(ROWS).select(table.column_names[:COLUMNS])
    width = min(WIDEST, max(NARROWEST, CHARACTERS // max(1, head.num_columns * (head.num_rows + 1))))
    columns = [[_clipped(_shown(value), width) for value in _values(column, width)] for column in head.columns]
    names = [_clipped(name, max(width, 20)) for name in head.column_names]
    return names, [list(row) for row in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray, width: int) -> list[object]:
    """Return a column's values; of text only the beginning, since a cell may be a whole book."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_slice_codeunits(column, 0, 2 * width)
    values: list[object] = column.to_pylist()
    return values


def _shown(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.6g}"
    if (span := getattr(value, "months", None)) is not None and hasattr(value, "nanoseconds"):
        return _span(span, value.days, value.nanoseconds)  # type: ignore[attr-defined]
    return str(value).replace("\r", "").replace("\n", "⏎").replace("\t", " ")


def _span(months: int, days: int, nanoseconds: int) -> str:
    """Return a span of time as people write it: ``1 day 02:03:04``."""
    total = days * _DAY + nanoseconds  # pandas' spans come without days
    days, rest = divmod(abs(total), _DAY)
    seconds, fraction = divmod(rest, 10**9)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    clock += f".{fraction:09}".rstrip("0") if fraction else ""
    parts = [f"{number} {unit}{'s' * (number != 1)}" for number, unit in ((months, "month"), (days, "day")) if number]
    if rest or not parts:
        parts.append(clock)
    return "-" * (total < 0) + " ".join(parts)


def _clipped(text: str, width: int) -> str:
    """Return at most ``width`` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)
