"""A host's cores: who runs where, how fast, and what messages take."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.streams import stream
from sim.alarm import Alarm
from sim.clock import Clock
from sim.cores import AHEAD, Cores
from tests.sim.test_compute import Begin, Cancel, Done, ends_on


def host(
    clock: Clock, cores: float, slots: Sequence[float] = (), beside: Sequence[float] = (), seed: int = 0
) -> Cores:
    return Cores(clock, cores, slots, beside, stream(seed, 0, "cores"))


def ends(
    jobs: Sequence[tuple[float, float, float]], cores: float, slots: Sequence[float] = (), seed: int = 0
) -> list[float]:
    """When jobs (start, base seconds, factor) end."""
    return ends_on(jobs, lambda clock: host(clock, cores, slots, seed=seed))


def test_jobs_on_one_core_share_it() -> None:
    assert ends([(0, 1, 1), (0, 1, 1)], 1) == pytest.approx([2, 2])
    assert ends([(0, 2, 1), (1, 2, 1)], 1) == pytest.approx([3, 4])


def test_who_begins_takes_an_idle_core() -> None:
    assert ends([(0, 3, 1), (0, 1, 1), (1.5, 1, 1)], 2) == pytest.approx([3, 1, 2.5])


@pytest.mark.parametrize("seed", range(6))
def test_of_three_jobs_on_two_cores_one_is_done_first_and_its_core_takes_another(seed: int) -> None:
    """One has a core to itself; then each of the others has half of its work left, and a core."""
    assert sorted(ends([(0, 1, 1)] * 3, 2, seed=seed)) == pytest.approx([1, 1.5, 1.5])


def test_which_core_is_shared_is_drawn() -> None:
    """Four jobs on two cores: two and two, so that all take 2 s; or one, which takes 1 s, and three."""
    drawn = [sorted(ends([(0, 1, 1)] * 4, 2, seed=seed)) for seed in range(40)]
    found = {tuple(round(end, 6) for end in several) for several in drawn}
    assert (2.0, 2.0, 2.0, 2.0) in found
    assert len(found) > 1
    for several in found:
        assert several[-1] == 2.0, "no core is ever idle before all is done"
        assert several[0] in (1.0, 2.0)


def woken(work: Sequence[float], busy: int, cores: int = 1) -> tuple[list[float], float]:
    """When what has slept ends its ``work``, begun with jobs of 10 ms; and when the last of these ends."""
    clock = Clock()
    there = host(clock, cores)
    jobs, short = [Done(clock) for _ in range(busy)], [Done(clock) for _ in work]
    for job in jobs:
        there.run(job, 0.01, 1.0)
    for one, seconds in zip(short, work, strict=True):
        there.run(one, seconds, 1.0, slept=True)
    clock.drain()
    return [one.at for one in short], max((job.at for job in jobs), default=0.0)


@pytest.mark.parametrize("busy", [0, 1, 4])
def test_little_work_of_who_has_slept_is_done_before_that_of_others(busy: int) -> None:
    """What is more than ``AHEAD`` is shared; nothing of the others' work is lost."""
    assert woken([AHEAD], busy) == ([pytest.approx(AHEAD)], pytest.approx(AHEAD * bool(busy) + 0.01 * busy))
    (long,), last = woken([3 * AHEAD], busy)
    assert long == pytest.approx(AHEAD + 2 * AHEAD * (1 + busy))
    assert last == pytest.approx((3 * AHEAD + 0.01 * busy) * bool(busy))


def test_several_that_have_slept_share_a_core_among_them() -> None:
    (one, two), last = woken([AHEAD / 2, AHEAD], 1)
    assert (one, two) == (pytest.approx(AHEAD), pytest.approx(1.5 * AHEAD))
    assert last == pytest.approx(0.01 + 1.5 * AHEAD)
    assert woken([AHEAD], 1, cores=2)[0] == [pytest.approx(AHEAD)], "and an idle core is taken first"


def test_what_has_slept_and_is_cancelled_gives_its_core_back() -> None:
    clock = Clock()
    there, job, short = host(clock, 1), Done(clock), Done(clock)
    there.run(job, 0.01, 1.0)
    there.run(short, AHEAD, 1.0, slept=True)
    end = Cancel(there, short)
    clock.at(AHEAD / 4, end)
    clock.drain()
    assert (end.left, short.at) == (pytest.approx(0.75 * AHEAD), -1.0)
    assert job.at == pytest.approx(0.01 + AHEAD / 4)


def test_who_is_crowded_is_slower_by_how_many_there_are_at_the_moment() -> None:
    slots = (1.0, 1.9, 1.8)
    assert ends([(0, 1, 1)], 2, slots) == pytest.approx([1])
    assert ends([(0, 1, 1), (0, 1, 1)], 2, slots) == pytest.approx([1 / 0.95] * 2)
    first, second, third = sorted(ends([(0, 0.9, 1)] * 3, 2, slots))
    assert first == pytest.approx(1.0), "half of 1.8 on a core of its own"
    assert (second, third) == pytest.approx((1 + 0.45 / 0.95,) * 2)


def test_a_fraction_of_a_core_is_a_slower_one() -> None:
    assert ends([(0, 1, 1)], 0.5) == pytest.approx([2])
    assert ends([(0, 1, 1), (0, 1, 1)], 1.5) == pytest.approx([4 / 3] * 2)


def test_a_slow_down_is_lost_beside_the_cores() -> None:
    assert ends([(0, 1, 3)], 1) == pytest.approx([3])
    assert ends([(0, 1, 3), (0, 1, 1)], 1) == pytest.approx([2 + 2 * 2, 2])
    assert ends([(0, 1, 0.5)], 1) == pytest.approx([0.5])


def rates(jobs: int, weights: Sequence[float], seed: int, cores: int = 2) -> list[float]:
    """How fast jobs compute beside messages of ``weights`` at a pace of their own."""
    clock = Clock()
    there = host(clock, cores, seed=seed)
    for weight in weights:
        there.move(Done(clock), 100.0, weight, paced=True)
    for _ in range(jobs):
        there.run(Done(clock), 1.0, 1.0)
    return [job.rate for core in there._on for job in core]


@pytest.mark.parametrize(("cores", "load", "rate"), [(2, 1.0, 3 / 4), (2, 4.0, 2 / 3), (3, 1.0, 1.0)])
def test_what_keeps_its_own_pace_comes_in_bursts_that_are_shared_fairly(
    cores: int, load: float, rate: float
) -> None:
    """A job alone on 2 cores, beside bursts of 2: it has 2/3 of a core while they last, 3/4 of the time for
    a load of 1. Never less, however large the load; and all of a core where bursts leave one free.

    That is where one of the two ends is on its core. Where none is it loses nothing, where both are twice as
    much, and in the mean what was said."""
    found = [rates(1, [load], seed, cores)[0] for seed in range(400)]
    assert {round(one, 9) for one in found} == {round(1 - times * (1 - rate), 9) for times in (0, 1, 2)}
    assert sum(found) / len(found) == pytest.approx(rate, abs=0.03)


@pytest.mark.parametrize("weights", [[1.0], [0.4, 2.0], [4.0, 4.0, 0.1], [0.0, 1.0]])
def test_what_one_core_is_spared_the_other_loses(weights: list[float]) -> None:
    """Two jobs lose the same together wherever messages have their ends, and neither stands still."""
    found = [rates(2, weights, seed) for seed in range(40)]
    assert len({tuple(one) for one in found}) > 1
    together = [sum(one) for one in found]
    assert together == pytest.approx([together[0]] * 40)
    assert min(map(min, found)) >= 0.1 - 1e-12


@pytest.mark.parametrize(
    ("weights", "jobs", "taken"),
    [
        ([0.5], 4, [1.0]),  # each of its ends asks for less than the third of a core that all would get
        ([1.0], 4, [1.5]),
        ([1.0, 1.0], 0, [1.0, 1.0]),
        ([2.0, 2.0], 0, [2.0, 2.0]),
        ([3.0, 0.5, 0.5], 0, [2.0, 1.0, 1.0]),  # 1.5 cores are left for two ends that ask for three
        ([2.0], 2, [2.0]),  # four ask for two: half a core each
        ([0.0, 4.0, 4.0, 4.0], 0, [1.0, 6.0, 6.0, 6.0]),
    ],
)
def test_messages_keep_their_pace_as_long_as_their_ends_get_what_they_ask_for(
    weights: list[float], jobs: int, taken: list[float]
) -> None:
    clock = Clock()
    there, done = host(clock, 2), [Done(clock) for _ in weights]
    for _ in range(jobs):
        there.run(Done(clock), 100.0, 1.0)
    for one, weight in zip(done, weights, strict=True):
        there.move(one, 1.0, weight, paced=True)
    clock.drain()
    assert [one.at for one in done] == pytest.approx(taken)


def test_what_messages_cost_goes_by_how_many_compute() -> None:
    """One job loses nothing to them; two lose twice what they cost: one of two cores, together."""
    for jobs, expected in ((1, 1.0), (2, 1.0)):
        clock = Clock()
        there = host(clock, 2, beside=(0.0, 2.0))
        there.move(Done(clock), 100.0, 0.5, paced=True)
        for _ in range(jobs):
            there.run(Done(clock), 1.0, 1.0)
        assert sum(job.rate for core in there._on for job in core) == pytest.approx(expected)


def test_a_message_takes_its_part_of_all_cores() -> None:
    """One that alone fills both cores, beside a job: three ask for two."""
    clock = Clock()
    there, heavy, light = host(clock, 2), Done(clock), Done(clock)
    there.move(heavy, 1.0, 2.0)
    there.run(light, 1.0, 1.0)
    clock.drain()
    assert [heavy.at, light.at] == pytest.approx([1.5, 1.5])


def test_messages_move_where_nobody_computes_whatever_jobs_lose_to_them() -> None:
    """Where jobs lose nothing to them, too; and one that costs nothing is there at once."""
    clock = Clock()
    there, message, free = host(clock, 2, beside=(0.0, 2.0)), Done(clock), Done(clock)
    there.move(message, 1.0, 1.5)
    clock.drain()
    there.move(free, 0.5, 0.0)
    clock.drain()
    assert (message.at, free.at) == (pytest.approx(1.0), pytest.approx(1.5))


def test_what_is_cancelled_leaves_its_core_and_never_ends() -> None:
    """Three jobs on two cores: the one with a core to itself goes at 0.5 s, and another takes its core."""
    clock = Clock()
    there, done = host(clock, 2), [Done(clock) for _ in range(3)]
    for one in done:
        there.run(one, 1.0, 1.0)
    alone = next(core[0].alarm for core in there._on if len(core) == 1)
    end = Cancel(there, alone)
    clock.at(0.5, end)
    clock.drain()
    assert end.left == pytest.approx(0.5)
    assert sorted(one.at for one in done) == pytest.approx([-1.0, 1.25, 1.25])
    assert there.work == []
    assert there.cancel(alone) == 0.0


def test_a_message_that_is_cancelled_leaves_the_cores() -> None:
    clock = Clock()
    there, message, job = host(clock, 1), Done(clock), Done(clock)
    there.move(message, 2.0, 1.0)
    there.run(job, 1.0, 1.0)
    end = Cancel(there, message)
    clock.at(1.0, end)
    clock.drain()
    assert (end.left, job.at, message.at) == (pytest.approx(1.5), pytest.approx(1.5), -1.0)


class Watch(Alarm):
    """Begins a job, and looks at the cores after everything of that instant."""

    def __init__(self, cores: Cores, begin: Begin, seen: list[tuple[int, list[int]]]) -> None:
        self.cores, self.begin, self.seen = cores, begin, seen

    def fire(self) -> None:
        self.begin.fire()
        self.seen.append((len(self.cores._jobs), [len(core) for core in self.cores._on]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.floats(0.01, 3), st.sampled_from([1.0, 2.5])), min_size=1, max_size=12
    ),
    st.integers(1, 4),
    st.floats(0.5, 1.0),
    st.integers(0, 1000),
)
def test_no_work_is_lost_and_no_core_is_idle_while_another_is_shared(
    jobs: list[tuple[float, float, float]], cores: int, part: float, seed: int
) -> None:
    clock = Clock()
    slots = [part * min(k, cores) if k > 1 else 1.0 for k in range(1, 13)]
    there = host(clock, cores, slots, seed=seed)
    seen: list[tuple[int, list[int]]] = []
    done = [Done(clock) for _ in jobs]
    for (start, base, factor), one in zip(jobs, done, strict=True):
        clock.at(start, Watch(there, Begin(there, one, base, factor), seen))
    clock.drain()
    for count, on in seen:
        assert sum(on) == count
        assert not (min(on) == 0 and max(on) > 1)
    last = max(one.at for one in done)
    for (start, base, factor), one in zip(jobs, done, strict=True):
        assert one.at >= start + base * factor * (1 - 1e-9), "nobody is faster than alone"
    work = sum(base for _, base, _ in jobs)
    assert last - min(start for start, _, _ in jobs) >= work / max(1.0, *slots) * (1 - 1e-9)
    assert there.work == []
    assert [one.at for one in done] == ends(jobs, cores, slots, seed)
