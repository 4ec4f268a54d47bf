"""Tables: files, DataFrames and queries under names. Arrow, DuckDB, sqlglot and pydantic are imported at first use.

Statements are in `load.load`, `repartition.repartition`, `select.parse_query` and `select.run_query`.
"""

from .catalog import Catalog, table_of
from .table import HIDDEN_PREFIX, Table

__all__ = ["HIDDEN_PREFIX", "Catalog", "Table", "table_of"]
