import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzerllm_magics.widgets.series import downsample, pack, smooth


def test_a_short_series_is_left_alone():
    x, y = np.arange(5.0), np.array([1, np.nan, 3, 2, 5.0])
    assert downsample(x, y, points=5)[0] is not None
    np.testing.assert_array_equal(downsample(x, y, points=5), (x, y))


@given(st.integers(0, 3000), st.integers(4, 50), st.randoms(use_true_random=False))
def test_at_most_the_points_asked_for_remain_and_their_order_and_extremes_with_them(n, points, random):
    y = np.array([random.gauss(0, 1) for _ in range(n)])
    x = np.arange(n)
    kept_x, kept_y = downsample(x, y, points)
    assert len(kept_x) <= max(points, 0)
    assert (np.diff(kept_x) > 0).all()
    np.testing.assert_array_equal(y[kept_x], kept_y)
    if n:
        assert {y.min(), y.max(), y[0], y[-1]} <= set(kept_y)


def test_a_spike_between_nans_survives():
    y = np.full(100_000, np.nan)
    y[77_777] = 9.0
    x, kept = downsample(np.arange(100_000), y, points=200)
    assert kept[x == 77_777] == [9.0]


def test_a_series_of_nans_keeps_its_length_in_steps():
    x, y = downsample(np.arange(1000), np.full(1000, np.nan), points=50)
    assert np.isnan(y).all()
    assert (x[0], x[-1]) == (0, 999)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
def test_smoothing_is_the_exponential_average_of_pandas(n):
    y = np.random.default_rng(n).normal(3, 1, n)
    np.testing.assert_allclose(smooth(y, span=25), pd.Series(y).ewm(span=25).mean())


def test_smoothing_passes_over_what_is_not_finite():
    y = np.array([np.nan, 2.0, np.inf, np.nan, 4.0, 1.0])
    expected = pd.Series([2.0, 4.0, 1.0]).ewm(span=8).mean().to_numpy()
    np.testing.assert_allclose(smooth(y, 8), [np.nan, expected[0], expected[0], expected[0], *expected[1:]])


def test_smoothing_nothing_is_nothing():
    assert smooth(np.array([]), 8).shape == (0,)


def test_packing_is_column_after_column_in_little_endian_float32():
    data = pack([np.array([1, 2]), np.array([0.5, np.nan])])
    np.testing.assert_array_equal(np.frombuffer(data, "<f4"), [1, 2, 0.5, np.nan])
