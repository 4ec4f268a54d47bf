"""DuckDB with nothing but the tables that a query names: no files, no network, no settings, no Python variables."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

T = TypeVar("T")

_LOCKED = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "arrow_large_buffer_size": True,  # a batch of texts may have more than 2 GiB
}
"""Everything but `lock_configuration`, which comes last."""


@contextmanager
def connection(tables: Mapping[str, Any], *, threads: int | None = None) -> Iterator[DuckDBPyConnection]:
    """Connect for one query.

    Args:
        tables: What the query may read, by the names it has there: Arrow tables, or what gives an Arrow C stream any
            number of times.
        threads: None: one a core. Random numbers of a seed are the same each time with one thread alone.
    """
    cursor = _database(threads).cursor()  # a cursor has registered tables and a random seed of its own
    try:
        for name, data in tables.items():
            cursor.register(name, data)
        yield cursor
    finally:
        cursor.close()


def interruptible(duck: DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Return what ``work`` does with a connection; an interrupt of the kernel ends it (DuckDB overlooks it).

    Raises:
        KeyboardInterrupt: as soon as DuckDB has stopped.
    """
    future = _threads().submit(work)
    try:
        return future.result()
    except KeyboardInterrupt:
        duck.interrupt()
        wait([future])
        raise


@cache
def _threads() -> ThreadPoolExecutor:
    """Return threads that stay: on short queries a new one for each took 0.6 to 0.8 ms more."""
    return ThreadPoolExecutor(thread_name_prefix="duckdb")


@cache
def _database(threads: int | None) -> DuckDBPyConnection:
    import duckdb

    settings: dict[str, Any] = {**_LOCKED, "temp_directory": _spill_folder()}
    if threads:
        settings["threads"] = threads
    database = duckdb.connect(":memory:", config=settings)
    database.execute("set lock_configuration = true")
    return database


def _spill_folder() -> str:
    """Return a folder for what memory cannot hold; DuckDB makes it when it has to, and may read all that is in it."""
    return f"{tempfile.gettempdir()}/byzerllm-duckdb-{secrets.token_hex(8)}"
