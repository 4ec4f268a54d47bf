"""Models that answer with what they were asked, and queries that call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from byzerllm_magics.tables.carried_errors import carry_errors
from byzerllm_magics.tables.model_calls import Models, run_with_models
from byzerllm_magics.tables.select import parse_query, run_query
from byzerllm_magics.tables.table import Table

QUESTIONS = pa.table({"id": [1, 2, 3, 4], "q": ["one", "two", "three", "four"], "topic": ["a", "b", "a", "b"]})


class Echo:
    """Stands for deployed models: answers with what it was asked, and remembers every call."""

    def __init__(self, *names: str, fails: str = "") -> None:
        self.dispatched: list[list[dict[str, Any]]] = []
        self.fails = fails
        self.models = Models(names or ("chat",), self.ask)

    def ask(self, model: str, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        self.dispatched.append([dict(request) for request in requests])
        return [self.answer(model, request) for request in requests]

    def answer(self, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if self.fails and self.fails in request["instruction"]:
            return {"error": f"{request['instruction']} is too much"}
        turns = len(request["history"])
        return {"text": f"{model}<{request['instruction']}>{turns}", "extra": {"generated_tokens_count": 3}}

    @property
    def asked(self) -> list[str]:
        return [request["instruction"] for call in self.dispatched for request in call]


def ask(sql: str, echo: Echo, **tables: Table) -> Table:
    """Run a query over the questions and these tables, as a session does."""
    known = {"questions": Table(QUESTIONS), **tables}
    query = carry_errors(parse_query(sql, {}.get), known.__getitem__, echo.models.calls_in)
    return run_with_models(query, known.__getitem__, echo.models, run_query)


def rows(table: Table, *columns: str) -> list[Any]:
    arrow = table.arrow()
    values = [arrow.column(name).to_pylist() for name in columns]
    return values[0] if len(values) == 1 else list(zip(*values, strict=True))


CHAT = 'chat(llm_param(map("instruction", q)))'
