"""Long random sequences of starts, ends and cancellations, checked after every instant.

Rates are held against progressive filling of everything that moves, to 1e-9; and what the links keep about
one another against what it stands for. A promise that was forgotten would show in a rate only much later.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf

import pytest

from sim.alarm import Alarm
from sim.clock import Clock
from sim.fluid import Flow, Fluid, Link
from sim.link import CROWD
from tests.sim.test_maxmin import plain_rates

Draw = Callable[[], tuple[Link, ...]]


class Bytes(Flow):
    def __init__(self, path: tuple[Link, ...]) -> None:
        self.path, self.over = path, False

    def arrived(self) -> None:
        self.over = True


class Nothing(Alarm):
    def fire(self) -> None:
        pass


def mesh(fluid: Fluid, draw: random.Random) -> tuple[list[Link], Draw]:
    links = [Link(fluid, draw.choice([1, 2, 3, 10, 0.7])) for _ in range(draw.randint(3, 12))]
    return links, lambda: tuple(draw.sample(links, draw.randint(1, min(5, len(links)))))


def star(fluid: Fluid, draw: random.Random) -> tuple[list[Link], Draw]:
    servers, workers = draw.choice([1, 2, 4, 16]), draw.choice([4, 10, 20])
    links = [Link(fluid, draw.choice([1.0, 1.0, 4.0])) for _ in range(servers + workers)]
    return links, lambda: (links[servers + draw.randrange(workers)], links[draw.randrange(servers)])


def fans(fluid: Fluid, draw: random.Random) -> tuple[list[Link], Draw]:
    """Flows come in runs: a worker to every server, or every server to a worker."""
    servers, workers = draw.choice([3, 8, 16]), draw.choice([3, 6, 12])
    nodes = range(servers + workers)
    ups, downs = ([Link(fluid, draw.choice([8.0, 8.0, 20.0])) for _ in nodes] for _ in "ud")
    worker, turn, out = 0, servers, True

    def path() -> tuple[Link, ...]:
        nonlocal worker, turn, out
        if turn == servers:
            worker, turn, out = servers + draw.randrange(workers), 0, draw.random() < 0.5
        turn += 1
        return (ups[worker], downs[turn - 1]) if out else (ups[turn - 1], downs[worker])

    return ups + downs, path


def racks(fluid: Fluid, draw: random.Random) -> tuple[list[Link], Draw]:
    """Machines in racks with narrow up-links, some of them servers; sometimes a backplane."""
    count, per = draw.randint(2, 5), draw.randint(2, 5)
    machines = count * per
    nics = [Link(fluid, draw.choice([1.0, 1.0, 2.5, 10.0])) for _ in range(2 * machines)]
    ups = [Link(fluid, draw.choice([0.5, 1.0, 2.0, 3.7]) * per) for _ in range(2 * count)]
    plane = [Link(fluid, draw.choice([1.0, 5.0]))] if draw.random() < 0.5 else []
    servers = draw.sample(range(machines), draw.randint(1, machines // 2))

    def path() -> tuple[Link, ...]:
        a, b = draw.randrange(machines), draw.choice(servers)
        if draw.random() < 0.3:
            b = draw.randrange(machines)
        if a == b:
            b = (a + 1) % machines
        if draw.random() < 0.5:
            a, b = b, a
        through = [] if a // per == b // per else [ups[a // per], ups[count + b // per], *plane]
        return (nics[a], *through, nics[machines + b])

    return nics + ups + plane, path


def check(fluid: Fluid, links: list[Link], flows: list[Bytes]) -> None:
    """All rates, and all that is kept."""
    assert not fluid.free.guests
    index = {link: i for i, link in enumerate(links)}
    paths = [tuple(index[link] for link in flow.path) for flow in flows]
    rates = plain_rates(paths, [link.capacity for link in links])
    assert [flow.hub.level for flow in flows] == pytest.approx(rates, rel=1e-9)
    for link in links:
        foreign = [flow.hub for flow in link.flows if flow.hub is not link]
        own = [flow for flow in link.flows if flow.hub is link]
        if link.sole not in (None, CROWD):
            assert (own, foreign) == ([], [link.sole.hub])
        by = link.by if link.sole is CROWD else dict.fromkeys(foreign, 1)
        assert by == {hub: foreign.count(hub) for hub in foreign}
        assert (link.sole is None) == (not link.flows)
        assert link.own == len(own)
        assert (link.level < inf) == (link.own > 0)
        assert set(link.sat) == {other for flow in own for other in flow.path if other.own} - {link}
        assert link.turn == inf
        if not own and foreign:
            bounds = {hub: min(link.promises.get(hub, inf), hub.capacity) for hub in by}
            most = sum(count * max(bounds[hub], hub.level) for hub, count in by.items())
            assert most <= link.capacity * (1 + 1e-9)
            for hub, rate in link.promises.items():
                watched = [item for item in hub.monitors if item[0] == rate and item[2] is link]
                assert watched or rate >= hub.capacity or hub not in by
                assert hub not in link.by or rate >= hub.level * (1 - 1e-12)
                spread = link.sole is CROWD and len(link.guests) <= link.seats
                assert not (hub in by and spread) or rate <= link.share


def pass_time(clock: Clock, until: float) -> None:
    """All events until ``until``, and the clock there."""
    clock.at(until, Nothing())
    while clock._queue and clock._queue[0][0] <= until:
        clock.step()


@pytest.mark.parametrize("topology", [mesh, star, fans, racks])
@pytest.mark.parametrize("seed", [*range(12), 14, 35, 45, 105, 125, 323])  # the latter have found errors
def test_rates_are_right_after_every_change(
    topology: Callable[[Fluid, random.Random], tuple[list[Link], Draw]], seed: int
) -> None:
    draw = random.Random(f"{topology.__name__} {seed}")
    clock = Clock()
    fluid = Fluid(clock)
    links, path = topology(fluid, draw)
    most, equal = draw.choice([3, 10, 40]), draw.random() < 0.5
    flows: list[Bytes] = []
    for _ in range(120):
        for _ in range(draw.choice([1, 1, 1, 4, 24] if topology is fans else [1, 1, 1, 4])):
            choice = draw.random()
            if len(flows) < most and choice < 0.6:
                flows.append(Bytes(path()))
                fluid.start(flows[-1], 1.0 if equal else draw.uniform(0.01, 5))
            elif flows and choice < 0.7:
                fluid.cancel(flows.pop(draw.randrange(len(flows))))
        pass_time(clock, clock.now)
        if draw.random() < 0.7:
            due = (
                clock._queue[0][0]
                if clock._queue and draw.random() < 0.5
                else clock.now + draw.uniform(0, 0.5)
            )
            pass_time(clock, due)
        flows = [flow for flow in flows if not flow.over]
        check(fluid, links, flows)
    clock.drain()
    assert all(flow.over for flow in flows)
    assert not any(link.flows or link.own or link.by or link.sat for link in links)


def test_a_new_promise_is_kept_however_many_old_ones_are_forgotten() -> None:
    """Workers slower than their server come one by one, a dozen at a time: no NIC is ever overfull."""
    clock = Clock()
    fluid = Fluid(clock)
    server = Link(fluid, 100.0)
    flows: list[Bytes] = []
    for _ in range(400):
        flows.append(Bytes((Link(fluid, 10.0), server)))
        fluid.start(flows[-1], 1e6)
        if len(flows) > 12:
            fluid.cancel(flows.pop(0))
        pass_time(clock, clock.now)
        check(fluid, [server, *(flow.path[0] for flow in flows)], flows)
    assert len(server.monitors) < 16 * 13 + 65
    while len(flows) > 4:
        fluid.cancel(flows.pop(0))
    pass_time(clock, clock.now)
    assert [flow.hub.level for flow in flows] == pytest.approx([10.0] * 4)


def begun(fluid: Fluid, paths: list[tuple[Link, ...]], nbytes: float) -> list[Bytes]:
    """New flows of ``nbytes`` each, all at once."""
    flows = [Bytes(path) for path in paths]
    for flow in flows:
        fluid.start(flow, nbytes)
    pass_time(fluid.clock, fluid.clock.now)
    return flows


def test_a_promise_to_a_link_without_flows_holds_for_no_more_than_it_says() -> None:
    """What left room for four flows of a worker does not for the one that comes next, four times as fast."""
    clock = Clock()
    fluid = Fluid(clock)
    server, *others = servers = [Link(fluid, 10.0) for _ in range(4)]
    one, two = workers = [Link(fluid, 10.0) for _ in range(2)]
    for link in workers:
        link.users = 5
    stay = begun(fluid, [(other, two) for other in others], 1e3)
    begun(fluid, [(server, two)], 20.0)
    begun(fluid, [(link, one) for link in servers], 10.0)
    assert server.promises[one] < one.capacity
    pass_time(clock, 20.0)
    assert one.level == inf
    flows = stay + begun(fluid, [(server, one)], 1e3) + begun(fluid, [(server, two)], 1e3)
    check(fluid, servers + workers, flows)


def test_a_promise_that_is_renewed_leaves_room_for_who_is_faster() -> None:
    """A link promises all of its guests the same; one of them had been promised less, long ago."""
    fluid = Fluid(Clock())
    wide, slow, fast = (Link(fluid, 10.0) for _ in range(3))
    wide.unfold()
    wide.guests, wide.by = {Bytes(()): 0.0 for _ in range(3)}, {slow: 1, fast: 2}
    wide.seats, wide.share, wide.promises = 3, 10 / 3, {slow: 1.0, fast: 10 / 3}
    slow.level, fast.level = 1.5, 3.2
    assert wide.renew(slow)
    assert wide.share >= fast.level
    assert wide.promises[slow] >= slow.level


def test_flows_that_start_together_where_all_of_them_belong_need_no_solver() -> None:
    """A worker that sends to all servers while others do; one that comes when a server is full does."""
    clock = Clock()
    fluid = Fluid(clock)
    servers, workers = ([Link(fluid, 16.0) for _ in range(16)] for _ in "sw")
    settled = []
    settle = fluid._solver.settle

    def count(links: dict[Link, None], now: float) -> None:
        settled.append(now)
        settle(links, now)

    fluid._solver.settle = count  # type: ignore[method-assign]
    flows: list[Bytes] = []
    for worker in workers[:8]:
        flows += begun(fluid, [(worker, server) for server in servers], 100.0)
        check(fluid, servers + workers, flows)
        pass_time(clock, clock.now + 1.0)
    assert not settled
    flows += begun(fluid, [(workers[i], servers[0]) for i in range(8, 16)], 5.0)
    check(fluid, servers + workers, flows)
    assert settled
    clock.drain()
    assert all(flow.over for flow in flows)
