"""The options of ``run t as TableRepartition``."""

from __future__ import annotations

from pydantic import Field

from byzerllm_adapters.parameters import Parameters, Text


class RepartitionParameters(Parameters):
    """How a table is cut into partitions."""

    partition_num: int | None = Field(
        None, gt=0, alias="partitionNum", description="How many partitions; none: as many as there are."
    )
    partition_cols: Text | None = Field(
        None,
        alias="partitionCols",
        description="Columns, with commas between: rows that are equal in them come into one partition.",
    )

    @property
    def columns(self) -> list[str]:
        """The names in `partition_cols`."""
        return [name.strip() for name in (self.partition_cols or "").split(",") if name.strip()]
