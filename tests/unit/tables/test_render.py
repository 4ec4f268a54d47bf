"""The first rows of a table, as a notebook shows them."""

import pandas as pd
import pyarrow as pa

from byzerllm_magics.tables import Table
from byzerllm_magics.tables.catalog import table_of
from byzerllm_magics.tables.select import parse_query, run_query


def test_the_first_rows_and_all_counts_are_shown() -> None:
    text = repr(Table(pa.table({"n": range(1_000)}), [0, 400, 1_000]))
    assert text.splitlines()[:3] == ["n", "0", "1"]
    assert text.splitlines()[-1] == "1,000 rows, the first 20 shown · 2 partitions"
    assert len(text.splitlines()) == 22


def test_columns_stand_below_each_other_whatever_their_letters() -> None:
    lines = repr(Table(pa.table({"名字": ["祝威廉", "x"], "n": [1, None]}))).splitlines()
    assert lines == ["名字    n", "祝威廉  1", "x       NULL", "2 rows · 1 partition"]


def test_long_texts_are_clipped_and_lines_joined() -> None:
    html = Table(pa.table({"text": ["line\nnext", "x" * 10_000]}))._repr_html_()
    assert "line⏎next" in html
    assert "xxx…" in html
    assert len(html) < 1_000


def test_html_is_escaped_and_not_typeset() -> None:
    html = Table(pa.table({"<b>": ["<script>alert(1)</script> $x$"]}))._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "mathjax_ignore" in html


def test_colours_are_the_pages_own() -> None:
    html = Table(pa.table({"n": [1]}))._repr_html_()
    assert "color" not in html
    assert "background" not in html


def test_wide_and_long_tables_stay_small() -> None:
    wide = pa.table({f"column_{k}": ["<&>" * 1_000] * 100 for k in range(500)})
    table = Table(wide)
    assert len(table._repr_html_()) < 20_000
    assert len(repr(table)) < 20_000
    assert "488 more columns: column_12, column_13" in repr(table)


def test_both_forms_come_in_one_bundle() -> None:
    table = Table(pa.table({"n": [1]}))
    assert table._repr_mimebundle_(include=None) == {"text/plain": repr(table), "text/html": table._repr_html_()}


def test_nested_values_and_numbers_are_short() -> None:
    table = Table(pa.table({"x": [1 / 3], "list": [[0.5] * 4_096], "struct": [{"a": 1}]}))
    assert repr(table).splitlines()[1].startswith("0.333333  [0.5, 0.5")
    assert "{'a': 1}" in repr(table)
    assert len(repr(table)) < 1_000


def test_texts_stand_at_the_left_and_numbers_where_the_page_puts_them():
    html = Table(pa.table({"word": ["a"], "number": [1]}))._repr_html_()
    assert '<td style="text-align:left">a</td><td>1</td>' in html


def test_spans_of_time_are_read_as_people_write_them() -> None:
    spans = [pd.Timedelta("1 days 02:03:04.5"), pd.Timedelta(0), pd.Timedelta("-00:00:01"), None]
    table = table_of(pd.DataFrame({"t": spans}))
    found = run_query(parse_query("select t from spans", {}.get), lambda _: table)
    lines = [line.strip() for line in repr(found).splitlines()[1:5]]
    assert lines == ["1 day 02:03:04.5", "00:00:00", "-00:00:01", "NULL"]
    months = run_query(parse_query("select interval '14' month as t", {}.get), lambda _: table)
    assert repr(months).splitlines()[1] == "14 months"
