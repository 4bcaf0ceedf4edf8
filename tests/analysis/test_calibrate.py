"""Fits of probes' records: intervals say what they claim, of few measurements as well as of many."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.calibrate import CalibrationError, fit_links, fit_pacing, fit_ring_lag
from core.probes import ALLREDUCE, DUPLEX, PING, STREAM
from core.record import Record


def paced(late: np.ndarray) -> Record:
    steps = {"step": np.arange(2, 2 + len(late)), "start": np.zeros(len(late)), "end": 0.1 + late}
    return Record({}, {}, steps)


def observed(*rows: tuple[int, int, float, float]) -> Record:
    columns = np.array(rows, dtype=float).T
    names = ("node", "kind", "bytes", "seconds")
    return Record({}, {"bytes_out": np.zeros(2)}, {}, observations=dict(zip(names, columns, strict=True)))


@pytest.mark.parametrize("count", [5, 10, 40])
def test_intervals_of_few_measurements_cover_the_truth_as_often_as_those_of_many(count: int) -> None:
    """95 % intervals of what is typical, from 200 samples of a normal distribution: about 190 of them."""
    rng = np.random.default_rng(7)
    found = [fit_pacing(paced(rng.normal(0.002, 0.001, count)), 0.1) for _ in range(200)]
    assert 178 <= sum(one.low <= 0.002 <= one.high for one in found) <= 199


def test_single_late_steps_are_not_the_pace() -> None:
    late = np.full(40, 0.0002)
    late[[3, 17, 18, 30]] = 0.05
    assert fit_pacing(paced(late), 0.1).value == pytest.approx(0.0002)


def test_fewer_measurements_give_wider_intervals() -> None:
    rng = np.random.default_rng(3)

    def width(count: int) -> float:
        found = [fit_pacing(paced(rng.normal(0.0, 0.001, count)), 0.1) for _ in range(30)]
        return float(np.mean([one.high - one.low for one in found]))

    widths = [width(count) for count in (5, 10, 20, 80)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 4 * widths[3], "more than the root of 16, for few say little of their own scatter"


def test_an_interval_of_what_is_never_negative_is_not_either() -> None:
    rows = [(0, kind, size, seconds) for size in (1e6, 2e6)
            for kind in (PING, STREAM, DUPLEX) for seconds in (size / 1e8, 1.01 * size / 1e8)]  # fmt: skip
    found = fit_links(observed(*rows), "link.native")
    assert found["link.native.latency"].low == 0.0
    assert found["link.native.overhead"].low == 0.0


def test_a_latency_needs_pings_of_some_size_only() -> None:
    def rows(pings: tuple[float, ...]) -> list[tuple[int, int, float, float]]:
        streams = [(0, kind, size, size / 1e8) for size in (1e6, 2e6, 4e6) for kind in (STREAM, DUPLEX)]
        return [*streams, *((0, PING, size, size / 1e8 + 3e-4) for size in pings)] * 3

    found = fit_links(observed(*rows((1e6,))), "link.paced")
    assert found["link.paced.latency"].value == pytest.approx(3e-4)
    for none in ((), (8e6,)):
        with pytest.raises(CalibrationError, match="with pings"):
            fit_links(observed(*rows(none)), "link.paced")


def test_a_ring_of_part_of_a_vector_is_late_by_the_byte() -> None:
    """Two all-reduces' steps of two workers take as much longer as messages ask late."""

    def ring(seconds: float) -> Record:
        return observed(*((node, ALLREDUCE, 1e6, seconds) for node in (0, 1) for _ in range(3)))

    for whole, times in ((0.0, 1), (1e6, 1), (4e6, 4)):
        found = fit_ring_lag(ring(0.030), lambda lag: ring(0.020 + 2 * lag), 2, whole)
        assert found.value == pytest.approx(times * 0.005), whole
        assert found.low <= found.value <= found.high
