"""Queries over named tables: what they see, what comes out, and what goes wrong."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.tables import Catalog, Table
from byzerllm_magics.tables.engine import connection
from byzerllm_magics.tables.repartition import repartition
from byzerllm_magics.tables.select import parse_query, run_query
from byzerllm_magics.tables.sql_error import SqlError
from tests.unit.tables.sql import catalog, query, rows

NOTHING: dict[str, str] = {}


def refused(sql: str) -> SqlError:
    with pytest.raises(SqlError) as caught:
        query(sql)
    lines = caught.value.render()
    assert len(lines) <= 5
    assert "__byzer" not in " ".join(lines)
    return caught.value


def marked(sql: str) -> str | None:
    error = refused(sql)
    return None if error.offset is None else sql[error.offset : error.offset + error.length]


# -- clauses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select id from t limit 1", [(1,)]),
        ("select id from t order by id desc limit 1 offset 1", [(2,)]),
        ("select id from t sort by id desc", [(3,), (2,), (1,)]),
        ("select s from t order by s", [(None,), ("Hello World",), ("a,b",)]),
        ("select s from t order by s desc", [("a,b",), ("Hello World",), (None,)]),
        ("select id from t union all select one from one", [(1,), (2,), (3,), (1,)]),
        ("select one from one union select one from one", [(1,)]),
        ("select 'a' as c union all select one from one", [("a",), ("1",)]),
        ("select id from t minus select one from one order by id", [(2,), (3,)]),
        ("select id from t intersect select one from one", [(1,)]),
        ("select a.id from t a left join one b on a.id = b.one where b.one is null order by a.id", [(2,), (3,)]),
        ("select a.id from t a left anti join one b on a.id = b.one order by id", [(2,), (3,)]),
        ("select a.id from t a left semi join one b on a.id = b.one", [(1,)]),
        ("select * from one a join one b using (one)", [(1,)]),
        ("select id % 2 as r, count(1) c from t group by r having c > 1", [(1, 2)]),
        ("select one, count(*) from one group by one with rollup order by one", [(None, 1), (1, 1)]),
        ("select one, count(*) from one group by cube(one) order by 1", [(None, 1), (1, 1)]),
        ("with q as (select id from t) select sum(id) s from q", [(6,)]),
        ("with t as (select id from t where id > 1) select count(*) from t", [(2,)]),
        ("with a as (select 1 x), b as (select x + 1 y from a) select y from b", [(2,)]),
        ("with a as (select 1 x) select * from (with a as (select 2 x) select x from a) q join a on 1 = 1", [(2, 1)]),
        ("with recursive r as (select 1 n union all select n + 1 from r where n < 2) select * from r", [(1,), (2,)]),
        ("select * from (values (1, 'a'), (2, 'b')) as v(x, y)", [(1, "a"), (2, "b")]),
        ("select col2 from values (1, 'a')", [("a",)]),
        ("values (1, 2)", [(1, 2)]),
        ("from t select id where id > 2", [(3,)]),
        ("select (select max(id) from t) m", [(3,)]),
        ("select id from t a where exists (select 1 from one b where b.one = a.id)", [(1,)]),
        ("select id from t where id not in (select one from one)", [(2,), (3,)]),
        ("select T.ID from T where Id = 1", [(1,)]),
        ("select db.u.one, u.one from db.u where db.u.one = 1", [(1, 1)]),
        ("select st.f from t where st.g = 'u'", [(1,)]),
        ("select /*+ broadcast(zz) */ id from t where id = 1", [(1,)]),
        ("select count(*) from t tablesample (2 rows)", [(2,)]),
        ("select id from t qualify row_number() over (order by id desc) = 1", [(3,)]),
        ("select * from (select id, one from t cross join one) pivot (sum(one) for id in (1, 2))", [(1, 1)]),
    ],
)  # fmt: skip
def test_a_clause_means_what_it_means_in_spark(sql: str, expected: list[tuple[Any, ...]]) -> None:
    assert rows(sql) == expected


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select count(*), count(1), sum(id), id + 1, upper('x'), 'lit', 1.5 from t group by id",
         ["count(1)", "count(1)_1", "sum(id)", "(id + 1)", "upper('x')", "lit", "1.5"]),
        ("select a.id, b.id, a.ID from t a join t b on a.id = b.id", ["id", "id_1", "id_2"]),
        ("select cast(id as int), st.f from t", ["CAST(id AS INT)", "f"]),
        ("select `count(1)` + 1 as n from (select count(1) from t)", ["n"]),
        ("select `a b`, `祝` from (select 1 as `a b`, 2 as `祝`)", ["a b", "祝"]),
        ("select * from t where false", list(catalog().table("t").column_names)),
    ],
)  # fmt: skip
def test_columns_are_named_as_in_spark_and_told_apart(sql: str, names: list[str]) -> None:
    assert query(sql).column_names == names


# -- types and memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("sum(id)", "int64"),
        ("named_struct('s', sum(id))", "struct<s: int64>"),
        ("array(sum(id))", "large_list<l: int64>"),
        ("count(*)", "int64"),
        ("avg(id)", "double"),
        ("1.5", "double"),
        ("1", "int32"),
        ("cast(1 as decimal(10, 2))", "decimal128(10, 2)"),
        ("max(s)", "large_string"),
        ("max(dt)", "date32[day]"),
        ("max(ts)", "timestamp[us]"),
        ("current_timestamp()", "timestamp[us]"),
        ("now()", "timestamp[us]"),
        ("uuid()", "large_string"),
        ("to_json(named_struct('a', 1))", "large_string"),
        ("null", "null"),
        ("map('a', sum(id))", "map<large_string, int64>"),
    ],
)
def test_types_are_those_that_pandas_knows(expression: str, kind: str) -> None:
    table = query(f"select {expression} as v from t limit 1")
    assert str(table.schema.field("v").type).partition(" ('")[0] == kind
    assert len(table.df()) == 1


def test_a_sample_is_taken_row_by_row() -> None:
    tables = Catalog()
    tables["big"] = Table(pa.table({"n": range(20_000)}))

    def count(sample: str) -> int:
        sql = f"select count(*) as c from big tablesample ({sample}) as t"
        return run_query(parse_query(sql, NOTHING.get), tables.table).arrow()["c"][0].as_py()

    assert 9_000 < count("50 percent") < 11_000
    assert count("10 rows") == 10
    assert refused("select id from t tablesample (bucket 1 out of 2)").what.startswith("tablesample takes")


def test_a_sum_that_is_no_int64_is_an_error() -> None:
    assert "out of range" in refused("select sum(9223372036854775807) from t").what


def test_a_batch_of_texts_may_have_more_than_2_gib() -> None:
    assert pa.types.is_large_string(query("select s from t").schema.field("s").type)


def test_a_table_is_scanned_where_it_lies() -> None:
    base = pa.table({"a": [1]})
    assert Table(base).scannable()["a"].chunk(0).buffers()[1].address == base["a"].chunk(0).buffers()[1].address


def test_a_repartitioned_table_is_queried_in_the_order_of_its_partitions() -> None:
    tables = Catalog()
    tables["p"] = parted = repartition(Table(pa.table({"n": range(1_000)})), 7, ["n"])
    result = run_query(
        parse_query("select a.n from p a join p b using (n) order by a.n limit 3", NOTHING.get), tables.table
    )
    assert result.arrow()["n"].to_pylist() == [0, 1, 2]
    result = run_query(parse_query("select n from p", NOTHING.get), tables.table)
    assert result.arrow()["n"].to_pylist() == parted.arrow()["n"].to_pylist()
    assert result.partitions == 1


def test_hidden_columns_can_be_asked_for() -> None:
    tables = Catalog()
    tables["t"] = Table(pa.table({"a": [1, 2], "__error_of_a": [None, "late"]}))
    result = run_query(parse_query("select *, __error_of_a as why from t", NOTHING.get), tables.table)
    assert result.column_names == ["a", "why"]
    assert result.arrow()["why"].to_pylist() == [None, "late"]


def test_rows_keep_their_order() -> None:
    tables = Catalog(lambda: {"frame": pd.DataFrame({"n": range(300_000)})})
    result = run_query(parse_query("select n from frame where n % 3 = 0", NOTHING.get), tables.table)
    assert result.arrow()["n"].to_pylist() == list(range(0, 300_000, 3))


def test_a_query_can_be_run_again_and_by_several_threads() -> None:
    parsed = parse_query("select sum(id) as s, rand(1) as r from t group by s", NOTHING.get)
    before = parsed.sql()
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(run_query(parsed, catalog().table).arrow().to_pylist()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(one == found[0] for one in found)
    assert parsed.sql() == before


def test_an_interrupt_ends_a_query_and_the_next_one_runs() -> None:
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        query("select count(*) from range(10000000) a join range(10000000) b on a.id * 7 % 13 != b.id % 11")
    assert time.monotonic() - begun < 60
    assert rows("select 1") == [(1,)]


def test_only_the_named_tables_are_asked_for_each_once() -> None:
    asked: list[str] = []

    def tables(name: str) -> Table:
        asked.append(name)
        return catalog().table(name)

    sql = "with one as (select id from t) select * from one join t using (id) join db.u on true"
    run_query(parse_query(f"{sql} where 1 in (select id from T)", NOTHING.get), tables)
    assert sorted(asked) == ["T", "db.u", "t"]


# -- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "what", "do", "mark"),
    [
        ("select idd from t", "no column 'idd'", 'did you mean "id"?', "idd"),
        ("select a.idd from t a", "no column 'idd'", 'did you mean "id"?', "idd"),
        ("select b.id from t a", "'b' is no table of this query", "", "b"),
        ("select id from tt", "no table 'tt'", 'did you mean "t"?', "tt"),
        ("with q as (select id from q) select 1 from q", "no table 'q'", "", "q"),
        ("select sizee(xs) from t", "no function 'sizee'", 'did you mean "size"?', "sizee"),
        ("select chat(s) from t", "no function 'chat'", "deploy it first", "chat"),
        ("select id from t where xs > 1", "BIGINT[] and INTEGER cannot be compared", "cast one of them", "xs"),
        ("select xs + 1 from t", "+ does not take (BIGINT[], INTEGER)", "cast the values", "xs"),
        ("select id from t natural join (select 'a' as xs) as other",
         "the columns 'xs' have types that cannot be compared", "cast one of them", "other"),
        ("select sum(xs) from t", "sum does not take (BIGINT[])", "cast the values", "sum"),
        ("select id from t a, t b", "column 'id' is in more than one table", "write a.id or b.id", "id"),
        ("select id, count(*) from t", "column 'id' is neither grouped nor aggregated", "group by id", "id"),
        ("select explode(id) from t", "explode takes an array, not BIGINT", "split or array", "explode"),
        ("select id from t distribute by id", "distribute by has no effect on one table", "TableRepartition", "id"),
        ("select 2147483647 + 1", "Overflow in addition of INT32 (2147483647 + 1)!", "", None),
        ("select 'a' rlike '(?=x)'", "invalid perl operator: (?=", "", None),
        ("select soundex('a')", "soundex does not exist here", "levenshtein", "soundex"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_at_its_place(sql: str, what: str, do: str, mark: str | None) -> None:
    error = refused(sql)
    assert error.what == what
    assert do in error.do
    assert marked(sql) == mark


def test_columns_are_listed_where_none_is_near() -> None:
    assert refused("select zzzz from t").do == "columns: id, s, x, n, xs, m, st, ts, dt, j"
    assert refused("select zzzz as other from t").do == "columns: id, s, x, n, xs, m, st, ts, dt, j"
    assert refused("select id as number from t order by numbr").do == 'did you mean "number"?'


def test_an_error_of_the_catalog_keeps_its_advice() -> None:
    error = refused("select * from nothing_like_it")
    assert error.where.startswith("tables and DataFrame variables:")
    assert isinstance(error, ByzerError)


# -- safety -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "from read_csv('/etc/passwd')", "from read_text('/etc/passwd')", "from '/etc/passwd'", "from glob('/*')",
        "copy (select 1) to '{folder}/x.csv'", "attach '{folder}/x.db'", "install httpfs", "load httpfs",
        "set enable_external_access = true", "set threads = 1", "reset enable_external_access", "from frame",
        "export database '{folder}/x'", "set lock_configuration = false", "create secret s (type s3)",
    ],
)  # fmt: skip
def test_duckdb_itself_reads_and_writes_nothing(statement: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1]})
    with connection({}) as duck, pytest.raises(Exception, match=r"Error: "):
        duck.execute(statement.replace("{folder}", str(tmp_path))).fetchall()
    assert list(tmp_path.iterdir()) == []
    assert len(frame) == 1


def test_tables_of_one_query_are_unknown_to_the_next() -> None:
    with connection({"seen": pa.table({"a": [1]})}) as duck:
        assert duck.sql("select a from seen").fetchall() == [(1,)]
    with connection({}) as duck, pytest.raises(Exception, match="seen does not exist"):
        duck.sql("select a from seen")


def test_names_of_duckdbs_own_tables_are_names_like_any_other() -> None:
    for name in ("information_schema.tables", "duckdb_tables", "pg_catalog.pg_class", "sqlite_master"):
        assert refused(f"select * from {name}").what == f"no table {name!r}"
