"""Long series made small enough for a page: extremes a bin, a smoothed line, float32 bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCK = 64  # smoothing works in blocks: one small matrix product a block instead of a Python step a point


def extremes(y: np.ndarray, points: int) -> np.ndarray:
    """Return ascending indices, at most `points`: the first, the last, each bin's least and greatest value.

    Averaging would hide the spikes for which people look at a chart; extremes keep them. NaN counts as
    neither least nor greatest, and a bin of NaN only yields NaN, which a chart draws as a gap.

    Args:
        y: (n,) values.
        points: At least 4.

    """
    assert points >= 4, points
    n = len(y)
    if n <= points:
        return np.arange(n)
    inner = y[1:-1]
    bins = (points - 2) // 2
    width = -(-len(inner) // bins)
    padded = np.full(bins * width, np.nan)
    padded[: len(inner)] = inner
    rows = padded.reshape(bins, width)
    missing = np.isnan(rows)
    least = np.where(missing, np.inf, rows).argmin(axis=1)
    greatest = np.where(missing, -np.inf, rows).argmax(axis=1)
    start = np.arange(bins) * width + 1
    found = np.concatenate([[0], start + least, start + greatest, [n - 1]])
    return np.unique(np.minimum(found, n - 1))


def downsample(x: np.ndarray, y: np.ndarray, points: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `points` of the (n,) points x, y, spikes and both ends included; see `extremes`."""
    assert len(x) == len(y), (len(x), len(y))
    keep = extremes(y, points)
    return x[keep], y[keep]


def smooth(y: np.ndarray, span: float) -> np.ndarray:
    """Return the (n,) exponential moving average of y, its start corrected as Adam corrects its moments.

    Args:
        y: (n,) values; those not finite are skipped, the average stays what it was.
        span: Number of steps over which it averages: the newest weighs 2 / (span + 1), as in pandas.

    """
    finite = np.isfinite(y)
    decay = 1.0 - 2.0 / (max(span, 1.0) + 1.0)
    values = np.where(finite, y, 0.0)[finite]
    averages = _decayed_sums(values, decay)
    averages /= _decayed_sums(np.ones_like(values), decay)
    before = np.cumsum(finite) - 1
    result = np.full(len(y), np.nan)
    result[before >= 0] = averages[before[before >= 0]]
    return result


def _decayed_sums(y: np.ndarray, decay: float) -> np.ndarray:
    """Return s with s[i] = y[i] + decay * s[i-1], block by block."""
    blocks = -(-len(y) // _BLOCK)
    padded = np.zeros((blocks, _BLOCK))
    padded.flat[: len(y)] = y
    distance = np.subtract.outer(np.arange(_BLOCK), np.arange(_BLOCK))
    sums = padded @ np.where(distance >= 0, decay ** np.maximum(distance, 0), 0.0).T
    carry = decay ** np.arange(1, _BLOCK + 1)
    for block in range(1, blocks):
        sums[block] += carry * sums[block - 1, -1]
    return sums.ravel()[: len(y)]


def pack(columns: Sequence[np.ndarray]) -> bytes:
    """Return equally long (n,) columns one after the other as little-endian float32 for `traitlets.Bytes`."""
    assert len({len(column) for column in columns}) <= 1, "columns of one table"
    return b"".join(np.ascontiguousarray(column, dtype="<f4").tobytes() for column in columns)
