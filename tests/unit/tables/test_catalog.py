"""Names of tables: the session's, the notebook's, and a job's result."""

from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.tables import Catalog, Table


class Job:
    """A job that counts how often it was waited for."""

    waits = 0

    def wait(self) -> dict[str, Any]:
        self.waits += 1
        return {"name": "sft-demo", "tokens": 7, "model": None, "losses": [0.5, 0.25]}


@pytest.fixture
def catalog() -> Catalog:
    variables = {
        "frame": pd.DataFrame({"a": [1]}),
        "number": 7,
        "_private": pd.DataFrame({"b": [2]}),
        "Both": pa.table({"x": [1]}),
    }
    catalog = Catalog(lambda: variables)
    catalog["mine"] = Table(pa.table({"a": [1, 2]}), [0, 1, 2])
    catalog["raw"] = pa.table({"a": [3]})
    return catalog


def test_it_holds_tables_and_dataframes(catalog: Catalog) -> None:
    assert catalog.table("mine") is catalog["mine"]
    assert catalog.table("raw").arrow().to_pydict() == {"a": [3]}
    assert catalog.table("frame").arrow().to_pydict() == {"a": [1]}


def test_what_was_put_in_comes_before_a_variable(catalog: Catalog) -> None:
    catalog["frame"] = pa.table({"a": [9]})
    assert catalog.table("frame").arrow().to_pydict() == {"a": [9]}


def test_names_are_sorted_and_private_variables_left_out(catalog: Catalog) -> None:
    assert catalog.names() == ["Both", "frame", "mine", "raw"]
    assert sorted(catalog) == ["mine", "raw"]
    assert catalog.table("_private").num_rows == 1


def test_case_is_ignored_where_nothing_is_written_so(catalog: Catalog) -> None:
    assert catalog.table("MINE") is catalog["mine"]
    assert catalog.table("both").column_names == ["x"]
    catalog["Mine"] = pa.table({"a": [5]})
    assert catalog.table("Mine").arrow().to_pydict() == {"a": [5]}
    with pytest.raises(ByzerError, match="'MINE' may be Mine or mine"):
        catalog.table("MINE")


def test_a_job_is_waited_for_at_first_use_and_once() -> None:
    catalog, job = Catalog(), Job()
    catalog["trained"] = job
    assert catalog.names() == ["trained"]
    assert job.waits == 0
    [row] = catalog.table("trained").arrow().to_pylist()
    assert row == {"name": "sft-demo", "tokens": 7, "model": None, "losses": [0.5, 0.25]}
    catalog.table("trained")
    assert job.waits == 1


@pytest.mark.parametrize(
    ("name", "what", "do"),
    [
        ("fram", "no table 'fram'", 'did you mean "frame"?'),
        ("zzz", "no table 'zzz'", "load or select makes one"),
        ("number", "'number' is a int, not a table", "give a pandas DataFrame"),
    ],
)
def test_a_missing_table_names_the_nearest(catalog: Catalog, name: str, what: str, do: str) -> None:
    with pytest.raises(ByzerError) as caught:
        catalog.table(name)
    assert caught.value.what == what
    assert do in caught.value.do


def test_an_empty_catalog_says_so() -> None:
    with pytest.raises(ByzerError) as caught:
        Catalog().table("t")
    assert caught.value.where == "tables and DataFrame variables: none yet"
