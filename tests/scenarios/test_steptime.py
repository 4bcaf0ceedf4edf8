"""Step times have the moments that they claim, and depend on seed, rank, step and time alone."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from scenarios.cluster import Cluster, Slowdown, StepTime
from scenarios.steptime import StepTimes
from scenarios.streams import RUN, stream

DRAWS = 20_000


def times(compute: StepTime = StepTime(), slowdowns=(), workers=2, seed=1) -> StepTimes:  # noqa: B008
    return StepTimes(Cluster(workers=workers, compute=compute, slowdowns=slowdowns), seed)


@pytest.mark.parametrize("model", ["lognormal", "gamma", "shifted_exponential"])
@pytest.mark.parametrize("spread", [0.05, 0.5, 1.0])
def test_mean_and_spread(model, spread) -> None:
    source = times(StepTime(model, 0.2, spread))
    drawn = np.array([math.prod(source.draw(0, k, 0.0)) for k in range(DRAWS)])
    assert drawn.min() > 0
    assert drawn.mean() == pytest.approx(0.2, rel=5 * spread / math.sqrt(DRAWS))
    assert drawn.std() / drawn.mean() == pytest.approx(spread, rel=0.12)


def test_shifted_exponential_has_a_floor() -> None:
    source = times(StepTime("shifted_exponential", 0.2, 0.5))
    assert min(source.draw(0, k, 0.0)[0] for k in range(1000)) >= 0.1


@pytest.mark.parametrize("model", ["constant", "lognormal", "gamma", "shifted_exponential"])
def test_no_spread_is_constant(model) -> None:
    assert {times(StepTime(model, 0.2)).draw(r, k, 0.0) for r in (0, 1) for k in range(200)} == {(0.2, 1.0)}


def test_empirical_draws_what_was_measured() -> None:
    source = times(StepTime("empirical", samples=(0.1, 0.2, 0.4)))
    drawn = [source.draw(0, k, 0.0)[0] for k in range(3000)]
    assert set(drawn) == {0.1, 0.2, 0.4}
    assert drawn.count(0.2) == pytest.approx(1000, abs=150)


def test_speeds_and_overhead() -> None:
    source = times(StepTime(mean=0.2, scale=(1.0, 3.0), overhead=0.01), (Slowdown(ranks=(1,), factor=2.0),))
    assert math.prod(source.draw(0, 0, 0.0)) == pytest.approx(0.21)
    assert math.prod(source.draw(1, 0, 0.0)) == pytest.approx(0.2 * 3 * 2 + 0.01)


def test_overhead_is_added_once_whatever_slows_the_worker_down() -> None:
    compute = StepTime("gamma", 0.2, 0.3)
    for slow in ((), (Slowdown("scheduled", intervals=((0, 9, 3.0),)),), (Slowdown("heavy_tailed"),)):
        plain, padded = times(compute, slow), times(replace(compute, overhead=0.01), slow)
        for step in range(100):
            assert math.prod(padded.draw(0, step, 1.0)) == pytest.approx(
                math.prod(plain.draw(0, step, 1.0)) + 0.01
            )


def test_fixed_slowdowns_multiply_on_the_ranks_that_they_name() -> None:
    source = times(slowdowns=(Slowdown(ranks=(1,), factor=4.0), Slowdown(factor=2.0)))
    assert [source.draw(r, 0, 0.0)[1] for r in (0, 1)] == [2.0, 8.0]


def test_scheduled_slowdowns_hold_for_their_interval() -> None:
    slow = Slowdown("scheduled", intervals=((1.0, 2.0, 3.0), (1.5, 4.0, 2.0)))
    source = times(slowdowns=(slow,))
    assert [source.draw(0, 0, now)[1] for now in (0.0, 1.0, 1.5, 2.0, 4.0)] == [1.0, 3.0, 6.0, 2.0, 1.0]


def test_transient_slowdowns_alternate_with_their_means() -> None:
    source = times(slowdowns=(Slowdown("transient", factor=5.0, mean_on=1.0, mean_off=3.0),))
    grid = np.arange(0, 4_000, 0.05)
    factors = np.array([source.draw(0, 0, now)[1] for now in grid])
    assert set(factors) == {1.0, 5.0}
    assert (factors == 5.0).mean() == pytest.approx(0.25, abs=0.03)
    ends = np.flatnonzero(np.diff(factors))
    assert len(ends) * 2.0 == pytest.approx(4_000, rel=0.2)


def test_heavy_tails_follow_their_power_law() -> None:
    source = times(slowdowns=(Slowdown("heavy_tailed", shape=2.0),))
    factors = np.sort([source.draw(0, k, 0.0)[1] for k in range(DRAWS)])
    assert factors[0] >= 1.0
    for level in (2.0, 5.0, 10.0):
        assert (factors > level).mean() == pytest.approx(level**-2, rel=0.2)


def test_draws_do_not_depend_on_who_asks_when() -> None:
    spread = StepTime("lognormal", 0.1, 0.3)
    slow = (
        Slowdown("transient", factor=2.0, mean_on=1.0, mean_off=1.0),
        Slowdown("heavy_tailed", ranks=(1,)),
    )
    asked = [(r, k, 0.37 * k) for r in (0, 1, 2) for k in range(150)]
    forward, shuffled = times(spread, slow, 3), times(spread, slow, 3)
    order = np.random.default_rng(0).permutation(len(asked))
    there = {asked[i]: shuffled.draw(*asked[i]) for i in order}
    assert {a: forward.draw(*a) for a in asked} == there
    assert times(spread, slow, 3, seed=2).draw(0, 0, 0.0) != forward.draw(0, 0, 0.0)
    fewer = times(spread, slow[:1], 2)
    assert fewer.draw(0, 5, 0.0) == forward.draw(0, 5, 0.0)


def test_streams_are_independent_by_seed_node_purpose_and_index() -> None:
    keys = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, RUN, "a"), (0, 0, "a", 1), (0, 0, "a", 2)]
    firsts = [stream(*key).random() for key in keys]
    assert len(set(firsts)) == len(keys)
    assert firsts == [stream(*key).random() for key in keys]


def test_draws_of_many_workers_are_small() -> None:
    """A block for each of a hundred thousand workers must fit beside them: 64 numbers of eight bytes."""
    cluster = Cluster(2000, compute=StepTime(model="lognormal", mean=1.0, spread=0.3))
    tracemalloc.start()
    try:
        times = StepTimes(cluster, 0)
        before, _ = tracemalloc.get_traced_memory()
        for rank in range(cluster.workers):
            times.draw(rank, 0, 0.0)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1000 * cluster.workers
