"""The names that adapter authors read their training data by."""

import pandas as pd
import pyarrow as pa
import pytest

from byzerllm_adapters.data import BlockRow, DataServer, RayContext
from byzerllm_adapters.errors import ByzerError


def test_rows_of_all_tables_come_in_order_as_dicts():
    first = pd.DataFrame({"instruction": ["a", "b"], "n": [1, 2]})
    second = pa.table({"instruction": ["c"], "history": [[["q", "r"]]]})
    assert list(RayContext.collect_from([DataServer(first), DataServer(second)])) == [
        {"instruction": "a", "n": 1},
        {"instruction": "b", "n": 2},
        {"instruction": "c", "history": [["q", "r"]]},
    ]


def test_rows_are_read_as_they_are_asked_for():
    rows = RayContext.collect_from([pa.table({"n": pa.array(range(10**6))})])
    assert next(rows) == {"n": 0}


def test_what_is_not_a_table_is_refused():
    with pytest.raises(ByzerError, match="a str is not a table"):
        list(RayContext.collect_from(["rows"]))


def test_a_block_is_a_piece_of_a_file():
    assert BlockRow(start=0, offset=3, value=b"abc").value == b"abc"
