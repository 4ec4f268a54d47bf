"""Functions and operators mean what they mean in Spark; every expected value is Spark 3's, ANSI mode off."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest

from byzerllm_magics.tables.sql_error import SqlError
from tests.unit.tables.sql import query, rows, values

TEXT = [
    ("concat(s, '!')", ["a,b!", "Hello World!", None]),
    ("concat(id, '-', s)", ["1-a,b", "2-Hello World", None]),
    ("concat(id, id)", ["11", "22", "33"]),
    ("s || 'x'", ["a,bx", "Hello Worldx", None]),
    ("concat_ws('-', s, 'q', null)", ["a,b-q", "Hello World-q", "q"]),
    ("concat_ws(',', array('a', 'b'), 'c')", "a,b,c"),
    ("length(s)", [3, 11, None]),
    ("length('祝威廉')", 3),
    ("substring(s, 1, 3)", ["a,b", "Hel", None]),
    ("substring(s, 0, 3)", ["a,b", "Hel", None]),
    ("substring(s, -3, 2)", ["a,", "rl", None]),
    ("substr('abc', -5, 3)", "a"),
    ("substring(s, 2)", [",b", "ello World", None]),
    ("substring('abc', id - 1, 1)", ["a", "a", "b"]),
    ("left(s, 2)", ["a,", "He", None]),
    ("right(s, 2)", [",b", "ld", None]),
    ("substring_index('a.b.c', '.', 2)", "a.b"),
    ("substring_index('a.b.c', '.', -1)", "c"),
    ("split(s, ',')", [["a", "b"], ["Hello World"], None]),
    ("split(s, ',')[0]", ["a", "Hello World", None]),
    ("split('a.b', '[.]')[1]", "b"),
    ("split('a.b', '\\\\.')[1]", "b"),
    ("regexp_replace('foo boo', '([a-z])o', '$1_')", "f_o b_o"),
    ("regexp_replace('a1b22', '[0-9]+', '#')", "a#b#"),
    ("regexp_replace('a', 'a', '\\\\$x')", "$x"),
    ("regexp_replace('ab', '(a)(b)', '$2-$1')", "b-a"),
    ("regexp_extract('a12b', '([a-z])([0-9]+)', 2)", "12"),
    ("regexp_extract('a12b', '([a-z])([0-9]+)')", "a"),
    ("regexp_extract('zzz', '([0-9]+)', 1)", ""),
    ("regexp_extract_all('a1b2', '([0-9])', 1)", ["1", "2"]),
    ("s rlike 'W'", [False, True, None]),
    ("regexp_like(s, 'W')", [False, True, None]),
    ("s like 'H%'", [False, True, None]),
    ("s ilike 'h%'", [False, True, None]),
    (r"'a_b' like 'a\\_b'", True),
    (r"'axb' like 'a\\_b'", False),
    ("upper(s)", ["A,B", "HELLO WORLD", None]),
    ("initcap('hello wORLD')", "Hello World"),
    ("trim('  a ')", "a"),
    ("trim(both 'x' from 'xax')", "a"),
    ("lpad('7', 3, '0')", "007"),
    ("lpad('7', 3)", "  7"),
    ("lpad('12345', 3, '0')", "123"),
    ("rpad('7', 3, '0')", "700"),
    ("instr('abc', 'b')", 2),
    ("locate('b', 'abcb', 3)", 4),
    ("position('b' in 'abc')", 2),
    ("repeat('ab', 2)", "abab"),
    ("replace('abc', 'b', 'x')", "axc"),
    ("replace('abc', 'b')", "ac"),
    ("translate('abc', 'ab', 'xy')", "xyc"),
    ("reverse('abc')", "cba"),
    ("find_in_set('b', 'a,b')", 2),
    ("format_string('%s-%d', 'a', 3)", "a-3"),
    ("format_number(1234567.891, 2)", "1,234,567.89"),
    ("levenshtein('ab', 'ac')", 1),
    ("md5('a')", "0cc175b9c0f1b6a831c399e269772661"),
    ("sha2('a', 256)", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
    ('"say \\"hi\\""', 'say "hi"'),
    ("'it\\'s'", "it's"),
    ("'tab\\tx'", "tab\tx"),
    ("r'a\\d'", "a\\d"),
    ("'a' 'b'", "ab"),
]
NUMBERS = [
    ("1 / 2", 0.5),
    ("id / 2", [0.5, 1.0, 1.5]),
    ("1 / 0", None),
    ("id % 2", [1, 0, 1]),
    ("id % 0", None),
    ("id % (id - 1)", [None, 0, 1]),
    ("7 div 2", 3),
    ("-7 div 2", -3),
    ("7 div (id - 1)", [None, 7, 3]),
    ("-7 % 3", -1),
    ("mod(7, 4)", 3),
    ("pmod(-7, 3)", 2),
    ("pmod(id - 5, 3)", [2, 0, 1]),
    ("2 ^ 3", 1),
    ("5 & 3", 1),
    ("~5", -6),
    ("shiftleft(1, 3)", 8),
    ("1.5", 1.5),
    ("id * 0.5", [0.5, 1.0, 1.5]),
    ("1e3", 1000.0),
    (".5 + 1.", 1.5),
    ("2L", 2),
    ("1.25bd", Decimal("1.25")),
    ("round(2.5)", 3.0),
    ("round(x)", [2.0, -3.0, None]),
    ("round(2.345, 2)", 2.35),
    ("ceil(x)", [2, -2, None]),
    ("floor(x)", [1, -3, None]),
    ("pow(2, 3)", 8.0),
    ("sign(x)", [1.0, -1.0, None]),
    ("ln(0)", None),
    ("log(2, 8)", 3.0),
    ("log10(100)", 2.0),
    ("log(id - 1)", [None, 0.0, 0.6931471805599453]),
    ("isnan(x)", False),
    ("hex(255)", "FF"),
    ("bin(5)", "101"),
    ("greatest(null, 1)", 1),
    ("least(id, 2, null)", [1, 2, 2]),
    ("-id", [-1, -2, -3]),
]
CASTS = [
    ("cast(x as string)", ["1.7", "-2.5", None]),
    ("string(id)", ["1", "2", "3"]),
    ("cast(x as int)", [1, -2, None]),
    ("int(x)", [1, -2, None]),
    ("cast(x as bigint)", [1, -2, None]),
    ("cast(n as int)", [10, 9, None]),
    ("cast(n as double)", [10.0, 9.0, None]),
    ("cast('1.7' as int)", 1),
    ("cast(' 12 ' as bigint)", 12),
    ("cast('9007199254740993' as bigint)", 9007199254740993),
    ("cast('9999999999' as int)", None),
    ("cast(true as int)", 1),
    ("cast(id as boolean)", True),
    ("cast('1.25' as decimal(10, 2))", Decimal("1.25")),
    ("cast(1.25 as decimal(10, 2))", Decimal("1.25")),
    ("cast('2024-03-05 10:11:12' as date)", date(2024, 3, 5)),
    ("cast('abc' as date)", None),
    ("cast('2024-03-05' as timestamp)", datetime(2024, 3, 5)),
    ("cast(dt as string)", ["2024-03-05", "2023-12-31", None]),
    ("cast(ts as string)", ["2024-03-05 14:07:09", "2023-12-31 00:00:00", None]),
]
COMPARISONS = [
    ("'B' < 'a'", True),
    ("n = '10'", [True, False, False]),
    ("id = '1'", [True, False, False]),
    ("id == 1", [True, False, False]),
    ("!(id = 1)", [False, True, True]),
    ("id <=> null", False),
    ("true and null", None),
    ("id in (1, 2)", [True, True, False]),
    ("id between 1 and 2", [True, True, False]),
    ("ts > '2024-01-01'", [True, False, None]),
    ("dt = '2024-03-05'", [True, False, None]),
    ("isnull(s)", [False, False, True]),
    ("isnotnull(s) and id = 1", [True, False, False]),
]
CHOICES = [
    ("nvl(s, 'z')", ["a,b", "Hello World", "z"]),
    ("nvl(id, 'none')", ["1", "2", "3"]),
    ("coalesce(x, 'none')", ["1.7", "-2.5", "none"]),
    ("nvl2(s, 1, 2)", [1, 1, 2]),
    ("nullif(id, 1)", [None, 2, 3]),
    ("if(id > 1, 'y', 'n')", ["n", "y", "y"]),
    ("if(id > 1, id, 'n')", ["n", "2", "3"]),
    ("case when id = 1 then 'a' else id end", ["a", "2", "3"]),
    ("case id when 1 then 'a' end", ["a", None, None]),
    ("decode(id, 1, 'one', 2, 'two', 'many')", ["one", "two", "many"]),
]
COLLECTIONS = [
    ("size(xs)", [2, 0, -1]),
    ("size(m)", [1, 0, -1]),
    ("size(map('a', 1))", 1),
    ("cardinality(xs)", [2, 0, -1]),
    ("xs[0]", [1, None, None]),
    ("xs[5]", None),
    ("xs[id - 1]", [1, None, None]),
    ("element_at(xs, 1)", [1, None, None]),
    ("element_at(xs, -1)", [2, None, None]),
    ("m['k']", [1, None, None]),
    ("map(1, 'a')[1]", "a"),
    ("m[substr('kk', 1, 1)]", [1, None, None]),
    ("st.f", [1, 2, None]),
    ("array(1, 2)", [1, 2]),
    ("array(id, 2.5)", [[1, 2.5], [2, 2.5], [3, 2.5]]),
    ("array('a', id)", [["a", "1"], ["a", "2"], ["a", "3"]]),
    ("map('a', 1, 'b', 2)['b']", 2),
    ("map('a', 1, 'b', 'x')", [("a", "1"), ("b", "x")]),
    ("map_keys(map('a', 1))", ["a"]),
    ("map_values(map('a', 1))", [1]),
    ("map_from_arrays(array('a'), array(1))", [("a", 1)]),
    ("map_contains_key(map('a', 1), 'a')", True),
    ("map_concat(map('a', 1), map('b', 2))", [("a", 1), ("b", 2)]),
    ("named_struct('a', 1, 'b', 'x')", {"a": 1, "b": "x"}),
    ("struct(id)", [{"id": 1}, {"id": 2}, {"id": 3}]),
    ("struct(id as q)", [{"q": 1}, {"q": 2}, {"q": 3}]),
    ("array_contains(xs, 1)", [True, False, None]),
    ("sort_array(array(3, 1, 2))", [1, 2, 3]),
    ("sort_array(array(3, 1, 2), false)", [3, 2, 1]),
    ("array_distinct(array(3, 1, 3, null, null))", [3, 1, None]),
    ("array_join(array('a', null, 'b'), ',')", "a,b"),
    ("slice(array(1, 2, 3, 4), 2, 2)", [2, 3]),
    ("slice(array(1, 2, 3, 4), -2, 9)", [3, 4]),
    ("reverse(array(1, 2))", [2, 1]),
    ("reverse(xs)", [[2, 1], [], None]),
    ("concat(array(1), array(2))", [1, 2]),
    ("flatten(array(array(1), array(2)))", [1, 2]),
    ("sequence(1, 3)", [1, 2, 3]),
    ("array_max(array(1, 3))", 3),
    ("array_position(array('a', 'b'), 'b')", 2),
    ("array_position(array('a', 'b'), 'z')", 0),
    ("array_remove(array(1, 2, 1), 1)", [2]),
    ("array_repeat('a', 2)", ["a", "a"]),
    ("array_union(array(2, 1), array(2, 3))", [2, 1, 3]),
    ("array_except(array(1, 2), array(2, 3))", [1]),
    ("arrays_overlap(array(1, 2), array(2, 3))", True),
    ("transform(array(1, 2), v -> v + 1)", [2, 3]),
    ("transform(array(5, 6), (v, i) -> v * i)", [0, 6]),
    ("filter(array(1, 2), v -> v > 1)", [2]),
    ("exists(array(1, 2), v -> v > 1)", True),
    ("forall(array(1, 2), v -> v > 1)", False),
    ("aggregate(array(1, 2, 3), 0, (a, v) -> a + v)", 6),
    ("aggregate(array(1, 2, 3), 0, (a, v) -> a + v, a -> a * 10)", 60),
    ("zip_with(array(1, 2), array(3, 4), (a, b) -> a + b)", [4, 6]),
]
JSON = [
    ("get_json_object(j, '$.a.b')", ["5", None, None]),
    ("get_json_object(j, '$.a.b') = '5'", [True, None, None]),
    ("get_json_object(j, '$.c[1]')", ["2", None, None]),
    ("get_json_object(j, '$.a')", ['{"b":5}', None, None]),
    ("from_json(j, 'a struct<b: int>')", [{"a": {"b": 5}}, None, None]),
    ("""from_json('{"x": 1, "y": ["q"]}', 'x int, y array<string>')""", {"x": 1, "y": ["q"]}),
    ("from_json('[1, 2]', 'array<int>')", [1, 2]),
    ("to_json(named_struct('a', 1, 'b', 'x'))", '{"a":1,"b":"x"}'),
    ("to_json(map('a', 1))", '{"a":1}'),
    ("to_json(st)", ['{"f":1,"g":"u"}', '{"f":2}', None]),
]
DATES = [
    ("date_format(ts, 'yyyy-MM-dd HH:mm:ss')", ["2024-03-05 14:07:09", "2023-12-31 00:00:00", None]),
    ("date_format(dt, 'yyyy年MM月dd日')", ["2024年03月05日", "2023年12月31日", None]),
    ("date_format(ts, 'EEEE, E')", ["Tuesday, Tue", "Sunday, Sun", None]),
    ("date_format(ts, 'MMM d, h:mm a')", ["Mar 5, 2:07 PM", "Dec 31, 12:00 AM", None]),
    ("""date_format(ts, "yyyy-MM-dd'T'HH:mm:ss.SSS")""", ["2024-03-05T14:07:09.000", "2023-12-31T00:00:00.000", None]),
    ("date_format(dt, 'M/d/yy')", ["3/5/24", "12/31/23", None]),
    ("date_format('2024-03-05', '100%')", "100%"),
    ("to_date('2024-03-05')", date(2024, 3, 5)),
    ("to_date('05/03/2024', 'dd/MM/yyyy')", date(2024, 3, 5)),
    ("to_date('bad', 'dd/MM/yyyy')", None),
    ("to_date('bad')", None),
    ("to_timestamp('2024-03-05 14:07:09')", datetime(2024, 3, 5, 14, 7, 9)),
    ("to_timestamp('2024/03/05', 'yyyy/MM/dd')", datetime(2024, 3, 5)),
    ("year(dt)", [2024, 2023, None]),
    ("year('2024-03-05')", 2024),
    ("hour('2024-03-05 14:07:09')", 14),
    ("second(ts)", [9, 0, None]),
    ("dayofweek(dt)", [3, 1, None]),
    ("weekday(dt)", [1, 6, None]),
    ("dayofyear(dt)", [65, 365, None]),
    ("weekofyear(dt)", [10, 52, None]),
    ("quarter(dt)", [1, 4, None]),
    ("date_add(dt, 1)", [date(2024, 3, 6), date(2024, 1, 1), None]),
    ("date_sub('2024-03-05', 1)", date(2024, 3, 4)),
    ("datediff(dt, '2024-03-01')", [4, -61, None]),
    ("add_months(dt, 1)", [date(2024, 4, 5), date(2024, 1, 31), None]),
    ("last_day(dt)", [date(2024, 3, 31), date(2023, 12, 31), None]),
    ("next_day(dt, 'Mon')", [date(2024, 3, 11), date(2024, 1, 1), None]),
    ("trunc(dt, 'MM')", [date(2024, 3, 1), date(2023, 12, 1), None]),
    ("date_trunc('month', ts)", [datetime(2024, 3, 1), datetime(2023, 12, 1), None]),
    ("date_trunc('MM', '2024-03-05')", datetime(2024, 3, 1)),
    ("months_between('2024-03-05', '2024-02-05')", 1.0),
    ("unix_timestamp(from_unixtime(86400))", 86400),
    ("unix_timestamp(from_unixtime(86400, 'yyyyMMdd HH:mm'), 'yyyyMMdd HH:mm')", 86400),
    ("ts + interval '1' hour", [datetime(2024, 3, 5, 15, 7, 9), datetime(2023, 12, 31, 1), None]),
    ("extract(year from ts)", [2024, 2023, None]),
    ("make_date(2024, 3, 5)", date(2024, 3, 5)),
    ("date '2024-03-05'", date(2024, 3, 5)),
    ("to_unix_timestamp('1970-01-02')", 86400),
    ("to_unix_timestamp('19700102', 'yyyyMMdd')", 86400),
    ("to_unix_timestamp(now()) > 1700000000", True),
]
NO_DATES = [
    (form.format(value), None)
    for value in ("'bad'", "s", "'2024-13-45'", "''")
    for form in (
        "year({})", "month({})", "day({})", "dayofmonth({})", "dayofyear({})", "dayofweek({})", "weekday({})",
        "weekofyear({})", "quarter({})", "hour({})", "minute({})", "second({})", "extract(year from {})",
        "date_add({}, 1)", "date_sub({}, 1)", "add_months({}, 1)", "datediff({}, '2024-03-01')",
        "datediff('2024-03-01', {})", "date_format({}, 'yyyy')", "last_day({})", "next_day({}, 'Mon')",
        "trunc({}, 'MM')", "date_trunc('month', {})", "months_between({}, '2024-02-05')", "unix_timestamp({})",
        "to_unix_timestamp({})", "to_date({})", "to_timestamp({})", "cast({} as date)",
    )
]  # fmt: skip
WINDOWS = [
    ("row_number() over (order by id)", [1, 2, 3]),
    ("lag(id) over (order by id)", [None, 1, 2]),
    ("lead(id, 1, 0) over (order by id)", [2, 3, 0]),
    ("sum(id) over (order by id)", [1, 3, 6]),
    ("ntile(2) over (order by id)", [1, 1, 2]),
    ("collect_list(id) over (order by id)", [[1], [1, 2], [1, 2, 3]]),
    ("collect_list(s) over (order by id)", [["a,b"], ["a,b", "Hello World"], ["a,b", "Hello World"]]),
    ("collect_list(s) over (order by id desc rows current row)", [[], ["Hello World"], ["a,b"]]),
    ("count(*) over ()", 3),
    ("monotonically_increasing_id()", [0, 1, 2]),
]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [*TEXT, *NUMBERS, *CASTS, *COMPARISONS, *CHOICES, *COLLECTIONS, *JSON, *DATES, *NO_DATES, *WINDOWS],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_expression_means_what_it_means_in_spark(expression: str, expected: Any) -> None:
    found = values(expression)
    wanted = expected if expected_by_row(expected, found) else [expected] * 3
    assert [(value, type(value)) for value in found] == [(value, type(value)) for value in wanted]


def expected_by_row(expected: Any, found: list[Any]) -> bool:
    """Whether three values are given; otherwise one, the same for each row."""
    return isinstance(expected, list) and len(expected) == 3 and found != [expected] * 3


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("sum(id)", 6),
        ("sum(x)", -0.8),
        ("avg(id)", 2.0),
        ("count(*)", 3),
        ("count(s)", 2),
        ("count(distinct id, s)", 2),
        ("count(id) filter (where id > 1)", 2),
        ("count_if(id > 1)", 2),
        ("min(s)", "Hello World"),
        ("collect_list(s)", ["a,b", "Hello World"]),
        ("collect_list(s) filter (where id > 1)", ["Hello World"]),
        ("collect_list(s) filter (where id > 9)", []),
        ("sort_array(collect_set(id % 2))", [0, 1]),
        ("percentile(id, 0.25)", 1.5),
        ("percentile(id, array(0.25, 0.5))", [1.5, 2.0]),
        ("percentile_approx(id, 0.5)", 2),
        ("approx_count_distinct(id)", 3),
        ("stddev(id)", 1.0),
        ("median(id)", 2.0),
        ("first(s)", "a,b"),
        ("last(id)", 3),
        ("max_by(s, id)", None),
        ("min_by(s, id)", "a,b"),
        ("every(id > 1)", False),
        ("some(id > 1)", True),
        ("max(struct(id, n)).n", "zz"),
    ],
)
def test_an_aggregate_means_what_it_means_in_spark(aggregate: str, expected: Any) -> None:
    [(found,)] = rows(f"select {aggregate} as v from t")
    assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)
    assert type(found) is type(expected)


def test_nothing_collected_is_an_empty_array() -> None:
    assert rows("select collect_list(s) a, collect_set(s) b from t where id > 9") == [([], [])]


def test_random_numbers_differ_from_row_to_row_and_are_below_one() -> None:
    found = values("rand()")
    assert len(set(found)) == 3
    assert all(0 <= value < 1 for value in found)


def test_random_numbers_of_a_seed_are_the_same_each_time() -> None:
    assert values("rand(42)") == values("rand(42)")
    assert values("rand(42)") != values("rand(43)")
    assert values("rand(42)") != values("rand()")


def test_the_present_is_known() -> None:
    sql = "select current_date() > '2024-01-01', now() > '2024-01-01', unix_timestamp() > 1700000000, uuid() != uuid()"
    assert rows(sql) == [(True, True, True, True)]
    assert rows("select date_format(current_timestamp(), 'yyyy') > '2023'") == [(True,)]


@pytest.mark.parametrize(
    ("expression", "what", "do"),
    [
        ("hash(id)", "hash does not exist here", "md5"),
        ("json_tuple(j, 'a')", "json_tuple does not exist here", "get_json_object"),
        ("split(s, '[,;]', 2)", "split takes a limit where its separator is one text", "slice"),
        ("date_format(ts, s)", "the date pattern has to be a string here", "write it as one"),
        ("date_format(ts, 'yyyy QQ')", "'QQ' in the date pattern 'yyyy QQ' is not known here", "known are"),
        ("from_json(j, 'a wrong<')", "the schema 'a wrong<' cannot be read", "write e.g."),
        ("regexp_replace(s, 'a', 'b', 2)", "regexp_replace takes three arguments here", "leave the position out"),
        ("split(s, ',', id)", "split takes a limit where its separator is one text", "slice"),
        ("reflect('java.lang.System', 'exit')", "reflect does not exist here", "no code is run here"),
    ],
)
def test_what_cannot_be_translated_is_refused_by_name(expression: str, what: str, do: str) -> None:
    with pytest.raises(SqlError) as caught:
        query(f"select id, {expression} from t")
    assert caught.value.what == what
    assert do in caught.value.do
    assert caught.value.offset == len("select id, ")
