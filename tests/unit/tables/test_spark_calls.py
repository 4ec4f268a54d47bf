"""How Spark's functions are called: with how many arguments, and what is said of a name that is none."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.tables.dialect import as_written, to_duckdb
from byzerllm_magics.tables.select import parse_query
from byzerllm_magics.tables.spark import SPARK
from byzerllm_magics.tables.spark_functions import CASTS, NAMES
from byzerllm_magics.tables.sql_error import SqlError
from tests.unit.tables.sql import query, rows, values

KNOWN = sorted({*SPARK.parser_class.FUNCTIONS, *SPARK.parser_class.FUNCTION_PARSERS} - {name.upper() for name in NAMES})


def refused(sql: str) -> SqlError:
    with pytest.raises(SqlError) as caught:
        query(sql)
    assert len(caught.value.render()) <= 5
    return caught.value


def marked(sql: str) -> tuple[str, str, str | None]:
    """Return what is wrong with a query, what to do, and the part of its text that is pointed at."""
    error = refused(sql)
    mark = None if error.offset is None else sql[error.offset : error.offset + error.length]
    return error.what, error.do, mark


# -- arguments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["id", "'a'", "xs"])
@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("name", sorted({*NAMES, *CASTS}))
def test_a_translated_function_gives_a_result_or_an_error_of_ours(name: str, count: int, argument: str) -> None:
    with suppress(ByzerError):
        query(f"select {name}({', '.join([argument] * count)}) from t")


@pytest.mark.parametrize("count", range(5))
def test_no_function_that_sqlglot_knows_fails_inside_it(count: int) -> None:
    for name in KNOWN:
        with suppress(SqlError):
            parsed = parse_query(f"select {name}({', '.join(['id'] * count)}) from t", {}.get)
            as_written(to_duckdb(parsed, {}))


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("date_format(id)", "date_format takes 2 arguments, not 1"),
        ("explode()", "explode takes 1 argument, not 0"),
        ("to_date()", "to_date takes 1 or 2 arguments, not 0"),
        ("unix_timestamp(1, 2, 3)", "unix_timestamp takes 0 to 2 arguments, not 3"),
        ("printf()", "printf takes at least 1 argument, not 0"),
        ("size()", "size takes 1 argument, not 0"),
        ("pmod(id)", "pmod takes 2 arguments, not 1"),
        ("pmod(id, 2, 3)", "pmod takes 2 arguments, not 3"),
        ("stack(1)", "stack takes at least 2 arguments, not 1"),
        ("bigint(1, 2)", "bigint takes 1 argument, not 2"),
        ("upper()", "upper lacks an argument"),
        ("lpad('a')", "lpad lacks an argument"),
        ("concat(lower(upper()), s)", "upper lacks an argument"),
        ("upper(s, s)", "upper takes at most 1 argument, not 2"),
        ("from_utc_timestamp(ts)", "from_utc_timestamp lacks an argument"),
    ],
)
def test_a_wrong_number_of_arguments_is_told_at_the_function(call: str, what: str) -> None:
    name = what.partition(" ")[0]
    found, _, mark = marked(f"select id, {call} from t")
    assert (found, mark) == (what, name)


# -- results ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("split('a,b,c', ',', 2)", ["a", "b,c"]),
        ("split('a.b.c', '\\\\.', 2)", ["a", "b.c"]),
        ("split('a,b', ',', 5)", ["a", "b"]),
        ("split('a,b', ',', 1)", ["a,b"]),
        ("split('a,b', ',', -1)", ["a", "b"]),
        ("btrim('  a ')", "a"),
        ("btrim('xxaxx', 'x')", "a"),
        ("str_to_map('a:1,b:2')", [("a", "1"), ("b", "2")]),
        ("str_to_map('a=1;b', ';', '=')", [("a", "1"), ("b", None)]),
        ("str_to_map('k:http://x', ',')", [("k", "http://x")]),
        ("map_filter(map('a', 1, 'b', 2), (k, v) -> v > 1)", [("b", 2)]),
        ("transform_values(map('a', 1), (k, v) -> v + 1)", [("a", 2)]),
        ("transform_keys(map('a', 1), (k, v) -> concat(k, v))", [("a1", 1)]),
        ("arrays_zip(array(1, 2), array('a', 'b'))", [{"0": 1, "1": "a"}, {"0": 2, "1": "b"}]),
        ("sequence(date'2024-01-30', date'2024-02-01', interval 1 day)", ["2024-01-30", "2024-01-31", "2024-02-01"]),
        ("sequence(date'2024-01-31', to_date('2024-02-01'))", ["2024-01-31", "2024-02-01"]),
        ("""get_json_object('{"a":[{"b":1},{"b":2}]}', '$.a[*].b')""", "[1,2]"),
        ("""get_json_object('{"a":[{"b":"x"},{"b":"y"}]}', '$.a[*].b')""", '["x","y"]'),
        ("""get_json_object('{"a":[{"b":1}]}', '$.a[*].b')""", "1"),
        ("""get_json_object('{"a":[]}', '$.a[*].b')""", None),
        ("bigint('7')", 7),
        ("smallint('7') + tinyint('1')", 8),
        ("cast(decimal('2.4') as string)", "2"),
        ("typeof(array(1))", "array<int>"),
        ("typeof(map('a', 1))", "map<string, int>"),
        ("typeof(null)", "void"),
        ("typeof(current_timestamp())", "timestamp"),
    ],
)
def test_a_function_gives_what_it_gives_in_spark(expression: str, expected: Any) -> None:
    [(found,)] = rows(f"select {expression} from one")
    if isinstance(found, list) and found and hasattr(found[0], "isoformat"):
        found = [value.isoformat() for value in found]
    assert found == expected


def test_types_have_sparks_names() -> None:
    assert rows("select typeof(id), typeof(s), typeof(x), typeof(1), typeof(dt), typeof(id > 1) from t limit 1") == [
        ("bigint", "string", "double", "int", "date", "boolean")
    ]
    assert values("typeof(sum(id) over ())") == ["bigint"] * 3


def test_the_fields_of_zipped_columns_have_their_names() -> None:
    assert values("arrays_zip(xs, transform(xs, v -> 'z'))")[0] == [{"xs": 1, "1": "z"}, {"xs": 2, "1": "z"}]


def test_an_aggregated_text_has_no_separator_but_the_one_that_is_said() -> None:
    assert rows("select listagg(n), listagg(n, '-'), string_agg(n, '') from t where id < 3") == [("109", "10-9", "109")]


def test_a_function_of_null_is_null() -> None:
    sql = "select split(s, ',', 2), str_to_map(s), map_filter(m, (k, v) -> true), get_json_object(s, '$.*') from t"
    assert rows(f"{sql} where id = 3") == [(None, None, None, None)]


# -- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "what", "do"),
    [
        ("uper(s)", "no function 'uper'", 'did you mean "upper"?'),
        ("llm_reslt(s)", "no function 'llm_reslt'", 'did you mean "llm_result"?'),
        ("llm_erorr(s)", "no function 'llm_erorr'", 'did you mean "llm_error"?'),
        ("llm_pram(s)", "no function 'llm_pram'", 'did you mean "llm_param"?'),
        ("soundex(s)", "soundex does not exist here", "levenshtein"),
        ("crc32(s)", "crc32 does not exist here", "md5"),
        ("bround(x)", "bround does not exist here", "half to even is not there"),
        ("current_user()", "current_user does not exist here", "write the name"),
    ],
)
def test_an_unknown_function_is_named_with_a_near_one(call: str, what: str, do: str) -> None:
    found, advice, mark = marked(f"select id, {call} from t")
    assert (found, mark) == (what, call.partition("(")[0])
    assert do in advice


def test_a_function_is_never_suggested_for_itself() -> None:
    for call in ("shuffle(xs)", "xpath_string(s, 'a')", "sentences(s)"):
        name = call.partition("(")[0]
        assert f'"{name}"' not in refused(f"select {call} from t").do
