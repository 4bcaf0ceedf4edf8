"""The fluid engine against an obviously right one: progressive filling from scratch at every change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.alarm import Alarm
from sim.clock import Clock
from sim.fluid import Flow, Fluid, Link


def slow_rates(paths: list[tuple[int, ...]], capacities: list[float]) -> list[float]:
    """Grow all rates together by the largest step that no link forbids; freeze where it is full."""
    rates, frozen = [0.0] * len(paths), [False] * len(paths)
    while not all(frozen):
        steps = []
        for link, capacity in enumerate(capacities):
            growing = sum(1 for path, still in zip(paths, frozen, strict=True) if link in path and not still)
            used = sum(rate for path, rate in zip(paths, rates, strict=True) if link in path)
            if growing:
                steps.append(((capacity - used) / growing, link))
        step, _ = min(steps)
        rates = [rate if still else rate + step for rate, still in zip(rates, frozen, strict=True)]
        for link, capacity in enumerate(capacities):
            used = sum(rate for path, rate in zip(paths, rates, strict=True) if link in path)
            if used >= capacity * (1 - 1e-12):
                frozen = [still or link in path for path, still in zip(paths, frozen, strict=True)]
    return rates


def slow_ends(flows: list[tuple[float, tuple[int, ...], float]], capacities: list[float]) -> list[float]:
    """When each flow (start, path, bytes) ends; every rate is computed anew at every change."""
    left = [float(nbytes) for _, _, nbytes in flows]
    ends, now = [-1.0] * len(flows), 0.0
    while min(ends) < 0:
        moving = [i for i, (start, _, _) in enumerate(flows) if start <= now and ends[i] < 0]
        rates = slow_rates([flows[i][1] for i in moving], capacities)
        coming = [start for start, _, _ in flows if start > now]
        finish = [now + left[i] / rate for i, rate in zip(moving, rates, strict=True)]
        until = min(finish + coming)
        for i, rate, end in zip(moving, rates, finish, strict=True):
            left[i] = max(left[i] - rate * (until - now), 0.0)
            if end <= until * (1 + 1e-13):
                ends[i] = until
        now = until
    return ends


@dataclass(eq=False)
class Plain(Flow):
    """A flow that notes when it ends."""

    clock: Clock
    path: tuple[Link, ...]  # type: ignore[assignment]
    nbytes: float
    end: float = field(default=-1.0)

    def arrived(self) -> None:
        self.end = self.clock.now


class Start(Alarm):
    def __init__(self, fluid: Fluid, flow: Plain) -> None:
        self.fluid, self.flow = fluid, flow

    def fire(self) -> None:
        self.fluid.start(self.flow, self.flow.nbytes)


class Watch(Alarm):
    """Looks at every link at one instant, after everything else of that instant."""

    def __init__(self, flows: list[Plain], links: list[Link]) -> None:
        self.flows, self.links = flows, links

    def fire(self) -> None:
        moving = [flow for flow in self.flows if any(flow in link.flows for link in self.links)]
        rates = {flow: flow.hub.level for flow in moving}
        full = []
        for link in self.links:
            used = sum(rates[flow] for flow in link.flows)
            assert used <= link.capacity * (1 + 1e-9)
            if used >= link.capacity * (1 - 1e-9):
                full.append(link)
        for flow in moving:
            bottlenecks = [link for link in flow.path if link in full]
            assert any(
                rates[flow] >= max(rates[other] for other in link.flows) * (1 - 1e-9) for link in bottlenecks
            )


def fast_ends(
    flows: list[tuple[float, tuple[int, ...], float]],
    capacities: list[float],
    watch: Sequence[float] = (),
    kind: type[Fluid] = Fluid,
    link: type[Link] = Link,
) -> list[float]:
    clock = Clock()
    fluid = kind(clock)
    links = [link(fluid, capacity) for capacity in capacities]
    made = [Plain(clock, tuple(links[i] for i in path), nbytes) for _, path, nbytes in flows]
    for (start, _, _), flow in zip(flows, made, strict=True):
        clock.at(start, Start(fluid, flow))
    for time in watch:
        clock.at(time, Watch(made, links), priority=9)
    clock.drain()
    assert not any(link.flows or link.own or link.by or link.sat for link in links)
    assert not fluid.free.guests
    return [flow.end for flow in made]


capacity = st.sampled_from([1.0, 2.0, 3.0, 10.0, 0.7])
instant = st.sampled_from([0.0, 0.5, 1.0, 1.25, 3.0]) | st.floats(0, 5)
size = st.sampled_from([1.0, 2.0, 5.0]) | st.floats(0.01, 20)


@st.composite
def meshes(draw: st.DrawFn) -> tuple[list[tuple[float, tuple[int, ...], float]], list[float]]:
    capacities = draw(st.lists(capacity, min_size=1, max_size=7))
    paths = st.lists(st.integers(0, len(capacities) - 1), min_size=1, max_size=3, unique=True).map(tuple)
    return draw(st.lists(st.tuples(instant, paths, size), min_size=1, max_size=12)), capacities


@st.composite
def stars(draw: st.DrawFn) -> tuple[list[tuple[float, tuple[int, ...], float]], list[float]]:
    """Workers with an uplink each, and one to three servers."""
    servers, workers = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    capacities = draw(st.lists(capacity, min_size=servers + workers, max_size=servers + workers))
    flows = [
        (
            draw(instant),
            (servers + draw(st.integers(0, workers - 1)), draw(st.integers(0, servers - 1))),
            draw(size),
        )
        for _ in range(draw(st.integers(1, 20)))
    ]
    return flows, capacities


@settings(max_examples=250, deadline=None)
@given(meshes() | stars())
def test_ends_are_those_of_progressive_filling(
    case: tuple[list[tuple[float, tuple[int, ...], float]], list[float]],
) -> None:
    flows, capacities = case
    assert fast_ends(flows, capacities) == pytest.approx(slow_ends(flows, capacities), rel=1e-9)


@settings(max_examples=150, deadline=None)
@given(meshes() | stars(), st.lists(st.floats(0, 8), max_size=6))
def test_no_link_is_overfull_and_every_flow_has_a_bottleneck(
    case: tuple[list[tuple[float, tuple[int, ...], float]], list[float]], watch: list[float]
) -> None:
    flows, capacities = case
    fast_ends(flows, capacities, watch + [start for start, _, _ in flows])


class General(Fluid):
    """Leaves every start to the solver."""

    def start(self, flow: Flow, nbytes: float) -> None:
        self._wait(flow, nbytes)

    def _join(self) -> None:
        pass


class GeneralLink(Link):
    """Leaves every end to the end of its instant."""

    def _drop(self, flow: Flow, now: float) -> None:
        self._release(flow)
        if not self.own:
            self.clear()
        self._fluid.mark(self)


@settings(max_examples=150, deadline=None)
@given(meshes() | stars())
def test_the_short_way_and_the_solver_agree(
    case: tuple[list[tuple[float, tuple[int, ...], float]], list[float]],
) -> None:
    flows, capacities = case
    general = fast_ends(flows, capacities, kind=General, link=GeneralLink)
    assert fast_ends(flows, capacities) == pytest.approx(general, rel=1e-11)


def test_a_cancelled_flow_gives_its_share_back() -> None:
    clock = Clock()
    fluid = Fluid(clock)
    link = Link(fluid, 1.0)
    stays, goes = (Plain(clock, (link,), 10.0) for _ in range(2))

    class Cancel(Alarm):
        def fire(self) -> None:
            fluid.cancel(goes)

    clock.at(0.0, Start(fluid, stays))
    clock.at(0.0, Start(fluid, goes))
    clock.at(4.0, Cancel())
    clock.drain()
    assert (stays.end, goes.end) == (pytest.approx(12.0), -1.0)


def test_what_is_left_of_a_flow() -> None:
    clock = Clock()
    fluid = Fluid(clock)
    link, other = Link(fluid, 1.0), Link(fluid, 4.0)
    flows = [Plain(clock, path, 10.0) for path in ((link,), (link, other), (other,))]
    found = []

    class Look(Alarm):
        def fire(self) -> None:
            found.append([fluid.left(flow) for flow in flows])

    for flow in flows:
        clock.at(0.0, Start(fluid, flow))
    clock.at(0.0, Look())
    clock.at(2.0, Look())
    clock.drain()
    assert found == [[10.0, 10.0, 10.0], [9.0, 9.0, 3.0]]


def test_a_star_needs_no_solver() -> None:
    """One server, equal NICs: no start or end may cost more than the heap's logarithm."""
    clock = Clock()
    fluid = Fluid(clock)
    server, workers = Link(fluid, 10.0), [Link(fluid, 10.0) for _ in range(50)]
    flows = [Plain(clock, (up, server), 1.0 + i % 7) for i, up in enumerate(workers)]
    solved = []
    fluid.solve = lambda: solved.append(clock.now)  # type: ignore[method-assign]
    server.users = 50  # connections that lead over it
    for i, flow in enumerate(flows):
        clock.at(0.01 * i, Start(fluid, flow))
    clock.drain()
    assert not solved
    assert all(flow.end > 0 for flow in flows)


def test_promises_made_again_and_again_do_not_pile_up() -> None:
    fluid = Fluid(Clock())
    hub, other = Link(fluid, 10.0), Link(fluid, 10.0)
    other.unfold()
    other.by[hub] = 1
    for i in range(1000):
        hub.monitor(other, 1.0 + i % 2)
    assert len(hub.monitors) < 100
    assert other.promises[hub] in [rate for rate, _, _ in hub.monitors]
