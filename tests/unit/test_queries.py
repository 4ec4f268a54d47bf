"""A session's `select`: what it says beside its result."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics import queries
from byzerllm_magics.tables import Catalog, Table


@pytest.fixture
def select() -> Callable[..., Table]:
    """Run a query over a table ``t``."""

    def select(sql: str, **more: Any) -> Table:
        tables = Catalog()
        tables["t"] = Table(pa.table({"id": [1, 2]}))
        session: Any = SimpleNamespace(texts=dict, tables=tables, own_models=list)
        return queries.run(session, sql, lambda _: None, **more)

    return select


@pytest.mark.parametrize(("first_line", "line"), [(1, 2), (7, 8)])
def test_what_is_tolerated_is_told_with_its_line(
    select: Callable[..., Table], capsys: pytest.CaptureFixture[str], first_line: int, line: int
) -> None:
    assert select("select\n  id, from t", first_line=first_line).column_names == ["id"]
    assert capsys.readouterr().out == f"line {line}: a comma before from was left out\n"


def test_a_query_without_slips_says_nothing(select: Callable[..., Table], capsys: pytest.CaptureFixture[str]) -> None:
    select("select id from t")
    assert capsys.readouterr().out == ""


def test_an_interrupted_query_says_what_became_of_it(
    select: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Table:
        raise KeyboardInterrupt

    monkeypatch.setattr("byzerllm_magics.tables.select.run_query", interrupted)
    with pytest.raises(ByzerError, match="the query was interrupted"):
        select("select id from t")
