"""Estimates with 95 % intervals from few measurements: bootstrap, and lines through medians.

Rules this module obeys:

* Intervals are percentiles of 400 resamples of the measurements in their order of time, from a fixed seed,
  so a record always gives the same profile. Blocks of neighbours are drawn, not single ones: what disturbs
  one measurement disturbs the next, too.
* Few measurements say little of their own scatter: intervals are as much wider than the bootstrap's as
  Student's t is than the normal distribution, and as resamples of few scatter too little.
* All resamples are estimated at once, as rows of one array: a probe is evaluated between two others, on the
  budget of a calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import stats

from scenarios.profile import Constant

__all__ = ["FLATTEST", "RESAMPLES", "Lines", "constant", "interval", "line", "medians", "resamples"]

RESAMPLES = 400

FLATTEST = 1e-15
"""Seconds per byte below which a line does not rise: a thousand times faster than any memory."""


def _block(count: int) -> int:
    """How many neighbours of ``count`` measurements are drawn together: the cube root."""
    return max(1, round(math.cbrt(count)))


def resamples(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``RESAMPLES`` rows, each as many of ``data`` as there are, in blocks of neighbours from random places.

    After the last measurement comes the first one again.
    """
    count, block = len(data), _block(len(data))
    starts = rng.integers(count, size=(RESAMPLES, -(-count // block)))
    places = (starts[:, :, None] + np.arange(block)) % count
    return np.asarray(data[places.reshape(RESAMPLES, -1)[:, :count]])


def constant(data: np.ndarray, estimate: Callable[..., Any], unit: str, note: str = "") -> Constant:
    """``estimate(data, axis=...)`` with its interval."""
    draws = estimate(resamples(data, np.random.default_rng(0)), axis=1)
    return interval(float(estimate(data, axis=0)), draws, unit, len(data), len(data), note)


def medians(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Those of ``RESAMPLES`` resamples."""
    return np.asarray(np.median(resamples(data, rng), axis=1))


def interval(value: float, draws: np.ndarray, unit: str, count: int, fewest: int, note: str = "") -> Constant:
    """95 % interval of ``count`` measurements, drawn in groups of at least ``fewest``: see the module."""
    low, high = (float(bound) for bound in np.percentile(draws, (2.5, 97.5)))
    scatter = math.sqrt(fewest / max(1, fewest - _block(fewest)))
    wider = scatter * float(stats.t.ppf(0.975, max(1, count - 1))) / 1.96
    floor = 0.0 if draws.min() >= 0 else -math.inf
    low, high = max(floor, value - wider * (value - low)), value + wider * (high - value)
    return Constant(value, unit, min(low, value), max(high, value), count, note)


class Lines:
    """The line through the medians by size, and one for each of the resamples.

    Intercepts are seconds, slopes seconds per byte (0 where larger messages took no longer, of resamples
    ``FLATTEST``); ``drawn`` are the resamples' medians, a column for each size.
    """

    def __init__(self, times: Mapping[float, np.ndarray]) -> None:
        rng = np.random.default_rng(0)
        self.sizes = np.array(sorted(times))
        self.count, self.fewest = sum(map(len, times.values())), min(map(len, times.values()))
        self.medians = np.array([np.median(times[size]) for size in self.sizes])
        self.drawn = np.stack([medians(times[size], rng) for size in self.sizes], axis=1)
        self.intercept, self.slope = map(float, _through(self.sizes, self.medians))
        self.intercepts, slopes = _through(self.sizes, self.drawn)
        self.slopes = np.maximum(slopes, FLATTEST)

    def constant(self, unit: str, value: float, draws: np.ndarray) -> Constant:
        """``value`` with the interval of ``draws``, which were made of the resamples' lines."""
        return interval(value, draws, unit, self.count, self.fewest)


def line(times: Mapping[float, np.ndarray]) -> tuple[float, float]:
    """(seconds per message, seconds per byte) of the medians by size, by least relative squares.

    Neither is below 0.
    """
    sizes = np.array(sorted(times))
    intercept, slope = _through(sizes, np.array([np.median(times[size]) for size in sizes]))
    return float(intercept), float(slope)


def _through(sizes: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intercepts a and slopes b, neither below 0, of the lines closest to ``seconds`` t, shape (..., sizes).

    They minimize the sum over the sizes s of (1 - (a + b s) / t)^2: where that would have b < 0, b is 0 and a
    the weighted mean; where it would have a < 0, or there is one size only, a line through the origin.
    """
    unit = sizes.max()
    if len(sizes) == 1:
        return np.zeros(seconds.shape[:-1]), seconds[..., 0] / unit
    sizes, weights = sizes / unit, (seconds.min(axis=-1, keepdims=True) / seconds) ** 2
    weights = weights / weights.sum(axis=-1, keepdims=True)
    middle, mean = (weights * sizes).sum(axis=-1), (weights * seconds).sum(axis=-1)
    away = sizes - middle[..., None]
    slopes = (weights * away * (seconds - mean[..., None])).sum(axis=-1) / (weights * away**2).sum(axis=-1)
    slopes = np.maximum(slopes, 0.0)
    intercepts = mean - slopes * middle
    origin = (weights * sizes * seconds).sum(axis=-1) / (weights * sizes**2).sum(axis=-1)
    slopes = np.where(intercepts < 0, origin, slopes)
    return np.maximum(intercepts, 0.0), slopes / unit
