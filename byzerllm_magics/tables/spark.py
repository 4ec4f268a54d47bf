"""Spark's dialect as sqlglot reads it; functions that are translated here stay as they are written."""

from __future__ import annotations

from typing import ClassVar

from sqlglot.dialects.spark import Spark

from .spark_functions import NAMES


class _Spark(Spark):  # type: ignore[misc]
    class Parser(Spark.Parser):  # type: ignore[misc]
        FUNCTIONS: ClassVar = {
            name: build for name, build in Spark.Parser.FUNCTIONS.items() if name.lower() not in NAMES
        }
        FUNCTION_PARSERS: ClassVar = {
            name: parse for name, parse in Spark.Parser.FUNCTION_PARSERS.items() if name.lower() not in NAMES
        }


SPARK = _Spark()
