"""Spark's dialect as sqlglot reads it; functions that are translated here stay as they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from sqlglot import exp
from sqlglot.dialects.spark import Spark
from sqlglot.parser import build_var_map

from .spark_functions import CASTS, NAMES


def _map(arguments: list[exp.Expression]) -> exp.Expression:
    """Build a map; one with a key too many stays a function of that name, which is refused with its place."""
    odd = len(arguments) % 2 == 1
    return exp.Anonymous(this="map", expressions=arguments) if odd else build_var_map(arguments)


def _as_cast(kind: str) -> Callable[[list[exp.Expression]], exp.Expression]:
    """Return what builds a cast that is written as a function of that type's name."""

    def build(arguments: list[exp.Expression]) -> exp.Expression:
        if len(arguments) != 1:  # it stays a function, which is refused with its place
            return exp.Anonymous(this=kind, expressions=arguments)
        return exp.Cast(this=arguments[0], to=exp.DataType.build(kind, dialect="spark"))

    return build


class _Spark(Spark):  # type: ignore[misc]
    class Parser(Spark.Parser):  # type: ignore[misc]
        FUNCTIONS: ClassVar = {
            **{name: build for name, build in Spark.Parser.FUNCTIONS.items() if name.lower() not in NAMES},
            **{kind.upper(): _as_cast(kind) for kind in CASTS},
            "MAP": _map,
        }
        FUNCTION_PARSERS: ClassVar = {
            name: parse for name, parse in Spark.Parser.FUNCTION_PARSERS.items() if name.lower() not in NAMES
        }


SPARK = _Spark()
