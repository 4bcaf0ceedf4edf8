"""Flows over links at max-min fair rates, exact, at a cost that grows with what a change reaches.

Rules this module obeys:

* A flow's rate is max-min fair over all links of its path; it ends when its last byte has passed.
* Every flow belongs to its bottleneck: a link of its path that is full and on which no flow is faster
  (Bertsekas and Gallager, Data Networks, section 6.5.2). The flows that belong to a link, its *own*, all
  move at its ``level``. They share it by virtual time: ``served`` counts the bytes that each of them has
  received since the link last had none, a flow ends when ``served`` reaches its key, and starting or
  ending one costs O(log n) (Parekh and Gallager 1993, section II, with equal weights).
* A change that reaches one link only, all of whose flows are its own and cross no other full link, is
  acted on at once. Everything else is worked out at the end of its instant, however many flows started
  or ended in it, by ``sim.maxmin``, and only for links that it reaches.
* A link with room to spare has *promised* rates to the links that its flows belong to: as long as no
  level exceeds the promise made to it, nothing need be looked at. ``monitors`` holds the promises that
  were made to a link, the least first.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import inf

from sim.clock import LATE, NORMAL, Alarm, Clock
from sim.maxmin import Solver

__all__ = ["Flow", "Fluid", "Link"]


NONE_FULL: dict[Link, None] = {}
NO_PROMISES: dict[Link, float] = {}
UNWATCHED: list[tuple[float, int, Link]] = []
"""What links have that never met a full one: shared, and never put into."""


class Link(Alarm):
    """One direction of a NIC, a rack's uplink, a machine's memory bus: ``capacity`` in bytes/s.

    flows     all that cross it now, with their bytes
    own       how many of them belong to it; it is full if there are any
    level     rate of its own flows, bytes/s; infinite if there are none
    by        how many of its other flows belong to which link
    sat       full links that its own flows cross besides
    promises  rate up to which flows of another link leave room here, by that link
    monitors  (rate promised, tie-breaker, by which link) to its own flows
    turn      where it stands in the solver's queue; infinite if it does not
    found     what the solver has found its level to be, not acted on yet; 0 if nothing
    """

    __slots__ = (
        "_due", "_exact", "_fluid", "_heap", "by", "capacity", "flows", "found", "level", "monitors", "own",
        "promises", "sat", "served", "since", "started", "turn",
    )  # fmt: skip

    def __init__(self, fluid: Fluid, capacity: float) -> None:
        self._fluid, self.capacity = fluid, capacity
        self.flows: dict[Flow, float] = {}
        self.by: dict[Link, int] = {}
        self.sat = NONE_FULL
        self.promises = NO_PROMISES
        self.monitors = UNWATCHED
        self._heap: list[tuple[float, int, Flow]] = []
        self.own = self.started = 0
        self.level = self.turn = self._due = inf
        self.served = self.since = self.found = 0.0
        self._exact = False

    def add(self, flow: Flow, nbytes: float, level: float) -> None:
        """One more flow of its own; all of them move at ``level`` from now on."""
        fluid = self._fluid
        clock = fluid.clock
        now = clock._now
        served = self.served
        if self.own:
            served += self.level * (now - self.since)
            self.served = served
        self.since = now
        self.own += 1
        self.level = level
        fluid.sequence = entry = fluid.sequence + 1
        flow.hub, flow.entry = self, entry
        flow.key = key = served + nbytes
        heap = self._heap
        heappush(heap, (key, entry, flow))
        key, entry, first = heap[0]
        if first.entry != entry:
            self.schedule(now)
            return
        due = now + (key - served) / level
        if due < now:  # rounding may have served it by now
            due = now
        if due < self._due:
            self._due, self._exact = due, True
            heappush(clock._queue, (due, NORMAL, next(clock._eid), self))  # type: ignore[misc]
        else:
            self._exact = due == self._due

    def adopt(self, flow: Flow, left: float) -> None:
        """A flow that moves here from elsewhere, with ``left`` bytes to go; ``served`` is up to date."""
        fluid = self._fluid
        fluid.sequence += 1
        flow.hub, flow.entry = self, fluid.sequence
        flow.key = self.served + left
        self.own += 1
        heap = self._heap
        heappush(heap, (flow.key, fluid.sequence, flow))
        if len(heap) > 4 * self.own + 64:
            heap[:] = [item for item in heap if item[2].entry == item[1]]
            heapify(heap)

    def lose(self) -> None:
        """One of its own flows goes to another link."""
        self.own -= 1
        self._exact = False

    def advance(self, now: float) -> float:
        """``served`` as of ``now``."""
        if self.own and now > self.since:
            self.served += self.level * (now - self.since)
        self.since = now
        return self.served

    def schedule(self, now: float) -> None:
        """See to it that an alarm goes off no later than the first end."""
        if now > self.since:
            self.served += self.level * (now - self.since)
            self.since = now
        heap = self._heap
        while heap[0][2].entry != heap[0][1]:
            heappop(heap)
        due = max(now + (heap[0][0] - self.served) / self.level, now)
        if due < self._due:
            self._due, self._exact = due, True
            clock = self._fluid.clock
            heappush(clock._queue, (due, NORMAL, next(clock._eid), self))  # type: ignore[misc]
        else:
            self._exact = due == self._due

    def fire(self) -> None:
        """End the flows whose time has come, or look again later if their rate has changed meanwhile."""
        clock = self._fluid.clock
        now = clock._now
        if now != self._due:
            return
        self._due = inf
        heap = self._heap
        if not self._exact:
            self.served = served = self.served + self.level * (now - self.since)
            self.since = now
            while heap[0][2].entry != heap[0][1]:
                heappop(heap)
            due = now + (heap[0][0] - served) / self.level
            if due > now:
                self._due, self._exact = due, True
                heappush(clock._queue, (due, NORMAL, next(clock._eid), self))  # type: ignore[misc]
                return
        served, _, flow = heappop(heap)
        self.served, self.since = served, now
        if heap and heap[0][0] <= served:
            flows = [flow, *self._others(served)]
            for flow in flows:
                self._release(flow)
            self._shrink(now)
            for flow in flows:
                flow.arrived()
            return
        if self.by or self.sat:
            self._release(flow)
            self._shrink(now)
        else:
            self._drop(flow, now)
        flow.arrived()

    def _drop(self, flow: Flow, now: float) -> None:
        """``_release`` and ``_shrink``, where all flows are its own and cross no other full link."""
        for link in flow.path:
            del link.flows[flow]
            if link is not self:
                by = link.by
                count = by[self]
                if count == 1:
                    del by[self]
                else:
                    by[self] = count - 1
        flow.entry = 0
        self.own = own = self.own - 1
        if not own:
            self.level = inf
            self.served = 0.0
            self._heap.clear()
            return
        level = self.capacity / own
        if self.monitors and level > self.monitors[0][0]:
            self._fluid.mark(self)
            return
        self.level = level
        heap = self._heap
        key, entry, first = heap[0]
        if first.entry == entry:
            clock = self._fluid.clock
            self._due = due = now + (key - self.served) / level
            self._exact = True
            heappush(clock._queue, (due, NORMAL, next(clock._eid), self))  # type: ignore[misc]
        else:
            self.schedule(now)

    def _others(self, served: float) -> Iterator[Flow]:
        """Further flows that end at this instant."""
        heap = self._heap
        while heap and heap[0][0] <= served:
            _, entry, flow = heappop(heap)
            if flow.entry == entry:
                yield flow

    def _release(self, flow: Flow) -> None:
        """Take a flow of its own off all links."""
        flow.entry = 0
        self.own -= 1
        for link in flow.path:
            del link.flows[flow]
            if link is not self:
                count = link.by[self]
                if count == 1:
                    del link.by[self]
                    if link.own:
                        self.sat.pop(link, None)
                else:
                    link.by[self] = count - 1
                if link.own:
                    self._fluid.mark(link)

    def cancel(self, flow: Flow, now: float) -> None:
        """A flow of its own is taken off before its end."""
        self.advance(now)
        self._exact = False
        self._release(flow)
        self._shrink(now)

    def _shrink(self, now: float) -> None:
        """Flows of its own have gone: the others go faster."""
        own = self.own
        if not own:
            self.clear()
        if self.by or self.sat:
            self._fluid.mark(self)
        elif own:
            level = self.capacity / own
            if self.monitors and level > self.monitors[0][0]:
                self._fluid.mark(self)
            else:
                self.level = level
                self.schedule(now)

    def clear(self) -> None:
        """It has no flows of its own any more: it is not full."""
        self.level = self._due = inf
        self.served = self.since = 0.0
        self._heap.clear()
        for other in self.by:
            other.sat.pop(self, None)

    def meet(self, link: Link) -> None:
        """One of its own flows crosses ``link``, which is full."""
        if self.sat is NONE_FULL:
            self.sat = {}
        self.sat[link] = None

    def monitor(self, link: Link, rate: float, coming: tuple[Link, ...] = ()) -> None:
        """``link`` has room for flows of this one up to ``rate``; the next will cross ``coming``."""
        if link.promises is NO_PROMISES:
            link.promises = {}
        link.promises[self] = rate
        if rate < self.capacity:
            if self.monitors is UNWATCHED:
                self.monitors = []
            fluid = self._fluid
            fluid.sequence += 1
            heappush(self.monitors, (rate, fluid.sequence, link))
            if len(self.monitors) > 16 * self.own + 64:
                self._forget(coming)

    def _forget(self, coming: tuple[Link, ...]) -> None:
        """Keep one entry for each promise, and no promises of links that its own flows no longer cross."""
        kept: dict[Link, tuple[float, int, Link]] = {}
        for item in self.monitors:
            rate, _, link = item
            if link.promises.get(self) == rate:
                if self in link.by or link in coming:
                    kept[link] = item
                else:
                    del link.promises[self]
        self.monitors = [*kept.values()]
        heapify(self.monitors)


class Flow(Alarm):
    """Bytes on their way over ``path``; subclasses say in ``arrived`` what follows the last one.

    ``hub`` is the link that it belongs to, ``key`` is where it ends there, and ``entry`` tells its place in
    that link's heap from older ones.
    """

    __slots__ = ("entry", "hub", "key", "path")

    path: tuple[Link, ...]
    hub: Link
    key: float
    entry: int

    def arrived(self) -> None:
        """The last byte has passed."""
        raise NotImplementedError


class Fluid:
    """All flows that move now. ``free`` stands for the bottleneck of those that have none yet."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sequence = 0
        self.free = Link(self, inf)
        self._dirty: dict[Link, None] = {}
        self._alarm = _Late(self)
        self._solver = Solver(self)

    def start(self, flow: Flow, nbytes: float) -> None:
        """Let ``nbytes`` move along ``flow.path``."""
        path = flow.path
        best, share = path[0], inf
        for link in path:
            link.started += 1
            part = link.capacity / (len(link.flows) + 1)
            if part < share or (part == share and link.started > best.started):
                best, share = link, part
        if best.by or best.sat or self._dirty:
            self._wait(flow, nbytes)
            return
        for link in path:
            crowded = link.flows or link.capacity < best.capacity
            if crowded and link is not best and not self._room(link, best, path):
                self._wait(flow, nbytes)
                return
        for link in path:
            link.flows[flow] = nbytes
            if link is not best:
                by = link.by
                by[best] = by.get(best, 0) + 1
        best.add(flow, nbytes, share)

    def _wait(self, flow: Flow, nbytes: float) -> None:
        """Let the end of the instant decide how fast ``flow`` is."""
        free = self.free
        flow.hub, flow.entry = free, 0
        free.flows[flow] = nbytes
        for link in flow.path:
            link.flows[flow] = nbytes
            link.by[free] = link.by.get(free, 0) + 1
            self.mark(link)

    def _room(self, link: Link, best: Link, path: tuple[Link, ...]) -> bool:
        """Whether a new flow on ``path`` that belongs to ``best`` leaves room to spare on ``link``."""
        if link.own:
            return False
        part = link.capacity / (len(link.flows) + 1)
        promises = link.promises
        for hub in link.by:
            if hub is not best:
                if hub.level > part:
                    return False
                if part < hub.capacity and promises.get(hub, inf) > part:
                    hub.monitor(link, part)
        if part < best.capacity and promises.get(best, inf) > part:
            best.monitor(link, part, path)
        return True

    def cancel(self, flow: Flow) -> None:
        """Take a flow off its links before its end; it never arrives."""
        if flow.hub is not self.free:
            flow.hub.cancel(flow, self.clock._now)
            return
        del self.free.flows[flow]
        for link in flow.path:
            del link.flows[flow]
            link.by[self.free] -= 1
            if not link.by[self.free]:
                del link.by[self.free]

    def left(self, flow: Flow) -> float:
        """Bytes of ``flow`` that have not passed yet."""
        hub = flow.hub
        if hub is self.free:
            return hub.flows[flow]
        return max(flow.key - hub.served - hub.level * (self.clock._now - hub.since), 0.0)

    def mark(self, link: Link) -> None:
        """``link`` must be looked at when everything else of this instant has happened."""
        if not self._dirty:
            self.clock.at(self.clock._now, self._alarm, LATE)
        self._dirty[link] = None

    def solve(self) -> None:
        """Work out what has changed in this instant."""
        dirty, self._dirty = self._dirty, {}
        self._solver.settle(dirty, self.clock._now)


class _Late(Alarm):
    """The end of an instant."""

    __slots__ = ("_fluid",)

    def __init__(self, fluid: Fluid) -> None:
        self._fluid = fluid

    def fire(self) -> None:
        self._fluid.solve()
