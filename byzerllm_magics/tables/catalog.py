"""Names of tables: what statements made, then the notebook's DataFrames."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from byzerllm_adapters.errors import ByzerError

from .frames import arrow_of, is_frame
from .table import Table

Namespace = Callable[[], Mapping[str, Any]]


class Catalog(MutableMapping[str, Any]):
    """What names stand for: a `Table`, a DataFrame, or a job, whose table is its result row.

    As a mapping it holds what was put in, as it is; `table` resolves a name. DataFrame variables of the namespace are
    tables too, after those that were put in.

    Args:
        namespace: Returns the variables whose DataFrames count as tables; none by default.

    Example:
        >>> catalog = Catalog()
        >>> catalog["trained"] = job                                       # doctest: +SKIP
        >>> catalog.table("trained").df()       # waits for the job        # doctest: +SKIP
    """

    def __init__(self, namespace: Namespace = dict) -> None:
        self._namespace = namespace
        self._held: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        return self._held[name]

    def __setitem__(self, name: str, data: Any) -> None:
        self._held[name] = data

    def __delitem__(self, name: str) -> None:
        del self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def names(self) -> list[str]:
        """Names of all tables and DataFrame variables, sorted; variables that begin with ``_`` are not listed."""
        frames = {name for name, value in self._namespace().items() if not name.startswith("_") and is_frame(value)}
        return sorted({*self._held, *frames})

    def columns(self, name: str) -> list[str]:
        """Return a table's columns as far as they are known without work; none of a job that runs or a name unknown."""
        known = self._held.get(name, self._namespace().get(name))
        found = known.column_names if isinstance(known, Table) else getattr(known, "columns", ())
        return [column for column in found if isinstance(column, str)]

    def table(self, name: str) -> Table:
        """Return the table of that name: written exactly so, else ignoring case.

        A job is waited for, once.

        Raises:
            ByzerError: there is none of that name (the nearest one), the job failed, or it is not a table.
        """
        variables = self._namespace()
        for spelled in self._spellings(name, variables):
            if spelled in self._held:
                return self._resolved(spelled)
            if is_frame(variables.get(spelled)):
                return table_of(variables[spelled], spelled)
        raise self._missing(name, variables)

    def _spellings(self, name: str, variables: Mapping[str, Any]) -> list[str]:
        """Return the name itself, then what differs from it in case only; two such names are one too many."""
        if name in self._held or is_frame(variables.get(name)):
            return [name]
        alike = [known for known in self.names() if known.lower() == name.lower()]
        if len(alike) > 1:
            raise ByzerError(f"{name!r} may be {' or '.join(alike)}", do="write the name as one of them")
        return alike

    def _resolved(self, name: str) -> Table:
        data = self._held[name]
        if isinstance(data, Table):
            return data
        if hasattr(data, "wait") and not is_frame(data):  # a job's row does not change any more: it takes its place
            data = self._held[name] = table_of([data.wait()], name)
        return table_of(data, name)

    def _missing(self, name: str, variables: Mapping[str, Any]) -> ByzerError:
        if name in variables:
            return ByzerError(
                f"{name!r} is a {type(variables[name]).__name__}, not a table",
                do="give a pandas DataFrame, a pyarrow Table or a polars DataFrame",
            )
        names = self.names()
        near = difflib.get_close_matches(name, names, n=1)
        return ByzerError(
            f"no table {name!r}",
            where=f"tables and DataFrame variables: {', '.join(names[:8]) or 'none yet'}",
            do=f'did you mean "{near[0]}"?' if near else "load or select makes one, and so does a DataFrame variable",
        )


def table_of(data: Any, name: str = "") -> Table:
    """Return a DataFrame, or rows as a list of dicts, as a table of one partition.

    Raises:
        ByzerError: it is no table; a column mixes types.
    """
    if isinstance(data, Table):
        return data
    if isinstance(data, list):
        import pandas as pd

        data = pd.DataFrame(data)
    return Table(arrow_of(data, name))
