import numpy as np
import pytest

from byzerllm_magics.widgets.loss_chart import POINTS, LossChart


@pytest.fixture
def chart():
    return LossChart()


def columns(chart):
    table = np.frombuffer(chart.data, "<f4").reshape(-1, chart.meta["points"])
    return dict(zip(["step", *chart.meta["names"]], table, strict=True))


def test_it_shows_every_series_of_a_short_job_as_it_is(chart, make_state):
    state = make_state(10)
    chart.update(state)
    shown = columns(chart)
    for name, values in state.series.items():
        np.testing.assert_array_equal(shown[name], values.astype("f4"))
    assert chart.meta["raw"] == 10
    assert chart.meta["last"]["loss"] == 1.3


def test_a_job_without_metrics_is_an_empty_chart(chart, make_state):
    chart.update(make_state(0, series={}))
    assert chart.data == b""
    assert chart.meta["raw"] == 0


def test_an_update_that_changes_nothing_sends_nothing(chart, make_state):
    chart.update(make_state(10))
    sent = []
    chart.observe(sent.append, ["data", "meta"])
    chart.update(make_state(10))
    assert sent == []
    chart.update(make_state(11))
    assert {change["name"] for change in sent} == {"data", "meta"}


def test_a_long_job_is_thinned_and_its_spike_stays(chart, make_state):
    state = make_state(100_000, total_steps=100_000)
    state.series["loss"][54_321] = 99.0
    chart.update(state)
    shown = columns(chart)
    assert len(shown["step"]) <= POINTS
    assert chart.meta["raw"] == 100_000
    assert shown["loss"][shown["step"] == 54_322] == [99.0]


def test_a_zoom_is_answered_at_full_resolution_and_kept_while_the_job_grows(chart, make_state):
    chart.update(make_state(100_000))
    chart.range = [500.0, 800.0]
    np.testing.assert_array_equal(columns(chart)["step"], np.arange(499, 801))
    chart.update(make_state(100_001))
    np.testing.assert_array_equal(columns(chart)["step"], np.arange(499, 801))
    chart.range = []
    assert columns(chart)["step"][-1] == 100_001


def test_what_json_cannot_say_is_none(chart, make_state):
    state = make_state(3)
    state.series["loss"][-1] = np.nan
    chart.update(state)
    assert chart.meta["last"]["loss"] is None
