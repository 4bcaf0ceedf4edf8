"""Lines through medians, against SciPy's solver; those of resamples, against lines made one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from analysis.resampling import RESAMPLES, Lines, constant, line, medians, resamples

SECONDS = st.floats(1e-6, 10.0)


@given(times=st.dictionaries(st.integers(1, 10**9).map(float), SECONDS, min_size=2, max_size=6))
def test_a_line_is_the_best_one_that_neither_falls_nor_begins_below_zero(times: dict[float, float]) -> None:
    sizes, seconds = np.array(sorted(times)), np.array([times[size] for size in sorted(times)])
    scale = sizes.max()
    design = np.stack([np.ones_like(sizes), sizes / scale], axis=1) / seconds[:, None]
    _, best = optimize.nnls(design, np.ones_like(sizes))
    found = line({size: np.array([value]) for size, value in times.items()})
    assert min(found) >= 0.0
    residual = np.linalg.norm(design @ (found[0], found[1] * scale) - 1.0)
    assert residual == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_a_line_through_one_size_begins_at_the_origin() -> None:
    assert line({4.0: np.array([1.0, 2.0, 9.0])}) == (0.0, 0.5)


@given(data=st.lists(SECONDS, min_size=1, max_size=40, unique=True))
def test_resamples_are_blocks_of_neighbours(data: list[float]) -> None:
    rows = resamples(np.array(data), np.random.default_rng(0))
    assert rows.shape == (RESAMPLES, len(data))
    places = np.vectorize({value: place for place, value in enumerate(data)}.get)(rows)
    block = max(1, round(len(data) ** (1 / 3)))
    follow = (places[:, 1:] - places[:, :-1]) % len(data) == 1 % len(data)
    within = np.arange(1, len(data)) % block != 0
    assert follow[:, within].all()
    assert np.unique(places).size == len(data)


def test_resamples_lines_are_those_of_their_medians() -> None:
    rng = np.random.default_rng(3)
    times = {size: rng.gamma(4.0, size * 1e-9, 12) for size in (1e3, 1e5, 1e6)}
    lines = Lines(times)
    again = np.random.default_rng(0)
    drawn = np.stack([medians(times[size], again) for size in sorted(times)], axis=1)
    one_by_one = [line({s: np.array([m]) for s, m in zip(sorted(times), row, strict=True)}) for row in drawn]
    found = np.stack([lines.intercepts, lines.slopes], axis=1)
    np.testing.assert_allclose(found, one_by_one, rtol=1e-9, atol=0.0)
    assert (found > 0).all(axis=1).any()


def test_constants_of_lines_count_all_measurements() -> None:
    times = {1e3: np.linspace(1.0, 2.0, 5), 1e6: np.linspace(3.0, 5.0, 8)}
    lines = Lines(times)
    few = lines.constant("s", lines.intercept, lines.intercepts)
    assert (few.samples, few.unit, few.value) == (13, "s", lines.intercept)
    more = Lines({size: np.tile(values, 10) for size, values in times.items()})
    many = more.constant("s", more.intercept, more.intercepts)
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_an_interval_holds_its_value_and_is_the_same_every_time() -> None:
    data = np.random.default_rng(1).normal(5.0, 0.5, 60)
    found = constant(data, np.median, "s", "a note")
    assert found == constant(data, np.median, "s", "a note")
    assert 4.5 < found.low <= found.value <= found.high < 5.5
    assert found.low < found.high
    assert (found.unit, found.samples, found.note) == ("s", 60, "a note")


def test_larger_messages_that_take_no_longer_have_no_slope() -> None:
    lines = Lines({1e3: np.full(8, 2.0), 1e6: np.full(8, 1.0)})
    assert lines.slope == 0.0
    assert lines.intercept > 0.0
    assert (lines.slopes > 0.0).all()
