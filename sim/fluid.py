"""Flows over links at max-min fair rates, exact, at a cost that does not grow with idle neighbours.

Rules this module obeys:

* A flow's rate is max-min fair over all links of its path; it ends when its last byte has passed.
* Where one link, a *hub*, is the bottleneck of all of its flows, they share it by virtual time:
  ``served`` counts the bytes that each of its flows has received since the hub was last empty, a
  flow ends when ``served`` reaches its key, and starting or ending one costs O(log n) (Parekh and
  Gallager 1993, section II, with equal weights).
* A flow is in at most one hub. The hubs' rates are max-min fair as long as no other link on their
  flows' paths is overfull; what is checked is the sufficient condition that no flow is faster than
  an equal part of any link that it crosses. ``limit`` is a lower bound of the smallest such part.
* Where that fails, all flows that are connected through links become *loose*: their rates come
  from progressive filling (``sim.maxmin``), once per instant, however many started or ended in it.
  When the filling shows hubs again, the flows move back.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import islice
from math import inf

from sim.clock import LATE, NORMAL, Alarm, Clock
from sim.maxmin import fill

__all__ = ["Flow", "Fluid", "Link"]


class Link:
    """One direction of a NIC, a rack's uplink, a machine's memory bus: ``capacity`` in bytes/s."""

    __slots__ = ("capacity", "flows", "hub", "loose", "started")

    def __init__(self, fluid: Fluid, capacity: float) -> None:
        self.capacity = capacity
        self.flows: dict[Flow, None] = {}
        self.loose = 0
        self.started = 0
        self.hub = _Hub(fluid, self)


class Flow(Alarm):
    """Bytes on their way over ``path``; subclasses say in ``arrived`` what follows the last one."""

    __slots__ = ("hub", "key", "left", "path", "rate", "since", "version")

    path: tuple[Link, ...]
    hub: _Hub | None
    key: float
    left: float
    rate: float
    since: float
    version: int

    def arrived(self) -> None:
        """The last byte has passed."""
        raise NotImplementedError


class Fluid:
    """All flows that move now."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sequence = 0
        self._dirty: dict[Flow, None] = {}
        self._solver = _Solver(self)
        self._timer = _Timer(self)

    def start(self, flow: Flow, nbytes: float) -> None:
        """Let ``nbytes`` move along ``flow.path``."""
        path = flow.path
        flow.version = 0
        best, share = path[0], inf
        for link in path:
            if link.loose:
                break
            link.started += 1
            part = link.capacity / (len(link.flows) + 1)
            if part < share or (part == share and link.started > best.started):
                best, share = link, part
        else:
            hub = best.hub
            if len(best.flows) == hub.count and self._fits(path, best, share):
                for link in path:
                    link.flows[flow] = None
                hub.add(flow, nbytes, share)
                return
        for link in path:
            link.flows[flow] = None
        self._loosen(flow, nbytes)

    def cancel(self, flow: Flow) -> None:
        """Take a flow off its links before its end; it never arrives."""
        hub = flow.hub
        self._leave(flow)
        if hub is not None:
            hub.remove(flow)

    def left(self, flow: Flow) -> float:
        """Bytes of ``flow`` that have not passed yet."""
        now, hub = self.clock._now, flow.hub
        if hub is None:
            return max(flow.left - flow.rate * (now - flow.since), 0.0)
        return max(flow.key - hub.served - hub.rate * (now - hub.since), 0.0)

    def _fits(self, path: tuple[Link, ...], best: Link, share: float) -> bool:
        """Whether a new flow in the hub of ``best`` leaves all other links with room to spare."""
        limit = inf
        for link in path:
            if link is best:
                continue
            if link.hub.count:
                return False
            part = link.capacity
            if link.flows:
                part /= len(link.flows) + 1
                for other in link.flows:
                    hub = other.hub
                    assert hub is not None  # no link of the path has loose flows
                    if hub.rate > part and hub is not best.hub:
                        return False
                    if part < hub.limit:
                        hub.limit = part
            if part < limit:
                limit = part
        hub = best.hub
        fits = share <= hub.limit or hub.bounded(share)
        hub.limit = min(hub.limit, limit)
        return fits

    def _leave(self, flow: Flow) -> None:
        """Take ``flow`` off its links; what shared a link with a loose flow must be solved anew."""
        if flow.hub is None:
            for link in flow.path:
                del link.flows[flow]
                link.loose -= 1
                for neighbour in link.flows:
                    self._mark(neighbour)
                    break
            self._dirty.pop(flow, None)
            flow.version += 1
        else:
            for link in flow.path:
                del link.flows[flow]

    def _mark(self, flow: Flow) -> None:
        if not self._dirty:
            self.clock.at(self.clock._now, self._solver, LATE)
        self._dirty[flow] = None

    def _loosen(self, flow: Flow, left: float) -> None:
        flow.hub, flow.left, flow.rate = None, left, 0.0
        flow.since = self.clock._now
        flow.version += 1
        for link in flow.path:
            link.loose += 1
        self._mark(flow)

    def solve(self) -> None:
        """Give every component that changed in this instant its rates."""
        while self._dirty:
            first = next(iter(self._dirty))
            if first in first.path[0].flows:
                self._solve(self._component(first))
                continue
            # It was marked in the instant in which it left: its neighbours stand for it.
            del self._dirty[first]
            for link in first.path:
                self._dirty.update(dict.fromkeys(islice(link.flows, 1)))

    def _component(self, first: Flow) -> list[Flow]:
        """All flows connected with ``first`` through links; all of them are loose afterwards."""
        found, links = {first: None}, set()
        frontier = [first]
        while frontier:
            flow = frontier.pop()
            if flow.hub is not None:
                flow.hub.dissolve()
            for link in flow.path:
                if link not in links:
                    links.add(link)
                    for other in link.flows:
                        if other not in found:
                            found[other] = None
                            frontier.append(other)
        for flow in found:
            self._dirty.pop(flow, None)
        return list(found)

    def _solve(self, flows: list[Flow]) -> None:
        now = self.clock._now
        rates, stops = fill([flow.path for flow in flows])
        if self._hubs(flows, rates, stops):
            return
        for flow, rate in zip(flows, rates, strict=True):
            if rate != flow.rate:
                self._advance(flow, now)
                flow.rate = rate
                flow.version += 1
                self.sequence += 1
                self._timer.add(now + flow.left / rate, self.sequence, flow)

    def _advance(self, flow: Flow, now: float) -> None:
        flow.left = max(flow.left - flow.rate * (now - flow.since), 0.0)
        flow.since = now

    def _hubs(self, flows: list[Flow], rates: list[float], stops: list[Link]) -> bool:
        """Move ``flows`` into hubs if their bottlenecks qualify; says whether it did."""
        chosen = dict(zip(flows, stops, strict=True))
        for flow, rate in zip(flows, rates, strict=True):
            stop = chosen[flow]
            for link in flow.path:
                if link is stop:
                    if any(chosen[other] is not link for other in link.flows):
                        return False
                elif rate > link.capacity / len(link.flows):
                    return False
        now = self.clock._now
        for flow in flows:
            self._advance(flow, now)
            flow.version += 1
            for link in flow.path:
                link.loose -= 1
            hub = chosen[flow].hub
            limit = min((x.capacity / len(x.flows) for x in flow.path if x is not hub.link), default=inf)
            hub.limit = min(hub.limit, limit)
            hub.add(flow, flow.left, hub.link.capacity / (hub.count + 1))
        return True

    def ended(self, flows: list[Flow]) -> None:
        """These flows have passed their last byte."""
        for flow in flows:
            self._leave(flow)
        for flow in flows:
            flow.arrived()


class _Hub(Alarm):
    """Equal sharing of one link by virtual time."""

    __slots__ = ("_due", "_exact", "_fluid", "_heap", "count", "limit", "link", "rate", "served", "since")

    def __init__(self, fluid: Fluid, link: Link) -> None:
        self._fluid = fluid
        self.link = link
        self.count = 0
        self._heap: list[tuple[float, int, Flow]] = []
        self._due, self._exact = inf, False
        self._clear()

    def _clear(self) -> None:
        self.rate = self.served = self.since = 0.0
        self.limit = inf
        self._heap.clear()

    def add(self, flow: Flow, nbytes: float, rate: float) -> None:
        """One more flow; ``rate`` is what each flow gets from now on."""
        fluid = self._fluid
        clock = fluid.clock
        now = clock._now
        served = self.served
        if self.count:
            served += self.rate * (now - self.since)
            self.served = served
        self.since = now
        self.count += 1
        self.rate = rate
        flow.hub = self
        flow.key = key = served + nbytes
        fluid.sequence += 1
        heap = self._heap
        heappush(heap, (key, fluid.sequence, flow))
        first = heap[0]
        if first[2].hub is not self or first[2].key != first[0]:
            self._schedule(now)
            return
        due = now + (first[0] - served) / rate
        if due < self._due:
            self._due, self._exact = due, True
            heappush(clock._queue, (due, NORMAL, next(clock._eid), self))  # type: ignore[misc]
        else:
            self._exact = due == self._due

    def _schedule(self, now: float) -> None:
        """See to it that an alarm goes off no later than the first end."""
        heap = self._heap
        while heap[0][2].hub is not self or heap[0][2].key != heap[0][0]:
            heappop(heap)
        due = now + (heap[0][0] - self.served) / self.rate
        if due < self._due:
            self._due, self._exact = due, True
            clock = self._fluid.clock
            heappush(clock._queue, (due, NORMAL, next(clock._eid), self))  # type: ignore[misc]
        else:
            self._exact = due == self._due

    def fire(self) -> None:
        """End the flows whose time has come, or look again later if flows joined meanwhile."""
        now = self._fluid.clock._now
        if now != self._due:
            return
        self._due = inf
        heap = self._heap
        if not self._exact:
            self.served += self.rate * (now - self.since)
            self.since = now
            if now + (heap[0][0] - self.served) / self.rate > now:
                self._schedule(now)
                return
        self.served = served = heap[0][0]
        self.since = now
        _, _, flow = heappop(heap)
        if heap and heap[0][0] <= served:
            self._end([flow, *self._others(served)], now)
            return
        for link in flow.path:
            del link.flows[flow]
        self._shrink(1, now)
        flow.arrived()

    def _others(self, served: float) -> Iterator[Flow]:
        """Further flows that end at this instant."""
        heap = self._heap
        while heap and heap[0][0] <= served:
            key, _, flow = heappop(heap)
            if flow.hub is self and flow.key == key:
                yield flow

    def _end(self, flows: list[Flow], now: float) -> None:
        for flow in flows:
            for link in flow.path:
                del link.flows[flow]
        self._shrink(len(flows), now)
        for flow in flows:
            flow.arrived()

    def remove(self, flow: Flow) -> None:
        """``flow`` has left its links before its end."""
        now = self._fluid.clock._now
        self.served += self.rate * (now - self.since)
        self.since = now
        flow.hub = None
        self._shrink(1, now)

    def _shrink(self, by: int, now: float) -> None:
        self.count -= by
        if not self.count:
            self._clear()
            self._due = inf
            return
        rate = self.link.capacity / self.count
        if rate > self.limit and not self.bounded(rate):
            self.dissolve()
        else:
            self.rate = rate
            self._schedule(now)

    def bounded(self, rate: float) -> bool:
        """Whether ``rate`` keeps to the limit, worked out anew."""
        links = (link for flow in self.link.flows for link in flow.path if link is not self.link)
        self.limit = min((link.capacity / len(link.flows) for link in links), default=inf)
        return rate <= self.limit

    def dissolve(self) -> None:
        """All flows of this hub become loose."""
        now = self._fluid.clock._now
        served = self.served + self.rate * (now - self.since)
        flows = [flow for flow in self.link.flows if flow.hub is self]
        self.count, self._due = 0, inf
        for flow in flows:
            self._fluid._loosen(flow, max(flow.key - served, 0.0))
        self._clear()


class _Solver(Alarm):
    __slots__ = ("_fluid",)

    def __init__(self, fluid: Fluid) -> None:
        self._fluid = fluid

    def fire(self) -> None:
        self._fluid.solve()


class _Timer(Alarm):
    """Ends of loose flows."""

    __slots__ = ("_due", "_fluid", "_heap")

    def __init__(self, fluid: Fluid) -> None:
        self._fluid = fluid
        self._heap: list[tuple[float, int, int, Flow]] = []
        self._due = inf

    def add(self, time: float, sequence: int, flow: Flow) -> None:
        heappush(self._heap, (time, sequence, flow.version, flow))
        self._schedule()

    def _schedule(self) -> None:
        heap = self._heap
        while heap and (heap[0][3].version != heap[0][2] or heap[0][3].hub is not None):
            heappop(heap)
        if heap and heap[0][0] < self._due:
            self._due = heap[0][0]
            self._fluid.clock.at(self._due, self)

    def fire(self) -> None:
        now = self._fluid.clock._now
        if now != self._due:
            return
        self._due = inf
        heap, ended = self._heap, []
        while heap and heap[0][0] <= now:
            _, _, version, flow = heappop(heap)
            if flow.version == version and flow.hub is None:
                ended.append(flow)
        self._fluid.ended(ended)
        self._schedule()
