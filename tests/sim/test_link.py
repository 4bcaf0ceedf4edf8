"""How a link keeps its flows: none, one, a line in order of arrival, a heap."""

from __future__ import annotations

from collections import deque

import pytest

from sim.clock import Clock
from sim.fluid import Fluid, Link
from sim.link import CROWD
from tests.sim.test_fluid import Plain


def started(sizes: list[float]) -> tuple[Clock, Link, list[Link], list[Plain]]:
    """Flows of so many bytes, all at once, each over a link of its own and one that is shared."""
    clock = Clock()
    fluid = Fluid(clock)
    shared, own = Link(fluid, 1.0), [Link(fluid, 1.0) for _ in sizes]
    shared.users = len(sizes)
    flows = [Plain(clock, (link, shared), nbytes) for link, nbytes in zip(own, sizes, strict=True)]
    for flow in flows:
        fluid.start(flow, flow.nbytes)
    return clock, shared, own, flows


def test_a_link_with_one_flow_knows_that_flow_only() -> None:
    clock, shared, own, flows = started([1.0, 2.0])
    assert [link.sole for link in own] == flows
    assert not any(link.by or link.guests for link in own)
    assert shared.sole is CROWD
    clock.drain()
    assert [link.sole for link in (*own, shared)] == [None] * 3


def test_a_second_flow_makes_it_know_both() -> None:
    clock, shared, own, flows = started([1.0, 1.0])
    fluid = shared._fluid
    more = Plain(clock, (own[0], Link(fluid, 0.1)), 1.0)
    fluid.start(more, 1.0)
    assert own[0].sole is CROWD
    assert set(own[0].flows) == {flows[0], more}
    assert own[0].by == {shared: 1, more.path[1]: 1}
    clock.drain()
    assert own[0].sole is None
    assert more.end == pytest.approx(10.0)


def test_the_line_is_in_order_of_arrival_until_a_key_falls() -> None:
    """Equal sharing: k flows that are there have had the same; the ends follow from the sizes alone."""
    clock, shared, _, flows = started([1.0, 2.0, 2.0, 4.0])
    assert type(shared.line) is deque
    clock.drain()
    assert [flow.end for flow in flows] == pytest.approx([4.0, 7.0, 7.0, 9.0])
    clock, shared, _, flows = started([4.0, 2.0, 1.0, 2.0])
    assert type(shared.line) is list
    clock.drain()
    assert [flow.end for flow in flows] == pytest.approx([9.0, 7.0, 4.0, 7.0])


def test_guests_that_are_promised_the_same_need_no_second_look() -> None:
    """A wide link with four guests of 1 byte/s has room for as many times more of them as faster."""
    fluid = Fluid(Clock())
    wide = Link(fluid, 16.0)
    for _ in range(4):
        fluid.start(Plain(fluid.clock, (wide, Link(fluid, 1.0)), 100.0), 100.0)
    wide.spread(4, 1.0)
    assert (wide.seats, wide.share) == (8, 2.0)
    hub = Link(fluid, 16.0)
    assert wide.fits(hub, 2.0)
    assert wide.promises[hub] == 2.0
    assert hub.monitors[0][0] == 2.0
    assert not wide.fits(Link(fluid, 16.0), 2.5)
