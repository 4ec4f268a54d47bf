"""Patterns of Java that Spark's functions take, as DuckDB takes them."""

from __future__ import annotations

import re

from .sql_error import SqlError

_DATES = {
    "y": "%Y", "yy": "%y", "yyyy": "%Y", "u": "%Y", "uuuu": "%Y",
    "M": "%-m", "MM": "%m", "MMM": "%b", "MMMM": "%B", "L": "%-m", "LL": "%m",
    "d": "%-d", "dd": "%d", "D": "%-j", "DDD": "%j", "E": "%a", "EE": "%a", "EEE": "%a", "EEEE": "%A",
    "H": "%-H", "HH": "%H", "h": "%-I", "hh": "%I", "a": "%p",
    "m": "%-M", "mm": "%M", "s": "%-S", "ss": "%S", "SSS": "%g", "SSSSSS": "%f",
}  # fmt: skip
"""Letters of a date pattern in the words of strftime."""

_DATE_PIECES = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|.", re.DOTALL)
_REPLACEMENT_PIECES = re.compile(r"\\(.)|\$(\d)|.", re.DOTALL)


def strftime_pattern(pattern: str) -> str:
    """Return a date pattern (``yyyy-MM-dd HH:mm:ss``) in the words of strftime (``%Y-%m-%d %H:%M:%S``).

    Raises:
        SqlError: a letter that has no counterpart.
    """

    def one(match: re.Match[str]) -> str:
        text = match[0]
        if match[1] is not None:
            return (match[1].replace("''", "'") or "'").replace("%", "%%")
        if match[2] is None:
            return "%%" if text == "%" else text
        if text not in _DATES:
            raise SqlError(
                f"{text!r} in the date pattern {pattern!r} is not known here", do="known are y M d H h m s S a E D"
            )
        return _DATES[text]

    return _DATE_PIECES.sub(one, pattern)


def re2_replacement(replacement: str) -> str:
    r"""Return what regexp_replace puts in: Java's ``$1`` and ``\$`` as RE2's ``\1`` and ``$``."""

    def one(match: re.Match[str]) -> str:
        if match[2]:
            return f"\\{match[2]}"
        text = match[1] or match[0]
        return "\\\\" if text == "\\" else text

    return _REPLACEMENT_PIECES.sub(one, replacement)
