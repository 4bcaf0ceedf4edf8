"""Flows over links at max-min fair rates, exact, at a cost that grows with what a change reaches.

Rules this module obeys:

* A flow's rate is max-min fair over all links of its path; it ends when its last byte has passed.
* Every flow belongs to its bottleneck: a link of its path that is full and on which no flow is faster
  (Bertsekas and Gallager, Data Networks, section 6.5.2). ``sim.link`` says how a link shares itself out.
* A change that reaches one link only, all of whose flows are its own and cross no other full link, is
  acted on at once. Everything else waits for the end of its instant, however many flows start or end in
  it. New flows over such a link (a worker that sends to all servers) are then acted on together; the rest
  is worked out by ``sim.maxmin``, and only for links that it reaches.
* A link with room to spare has *promised* rates to the links that its flows belong to: as long as no
  level exceeds the promise made to it, nothing need be looked at. ``monitors`` holds the promises that
  were made to a link, the least first.
"""

from __future__ import annotations

from collections.abc import Container
from math import inf

from sim.alarm import LATE, Alarm
from sim.clock import Clock
from sim.link import CROWD, Flow, Link
from sim.maxmin import Solver

__all__ = ["Flow", "Fluid", "Link"]


class Fluid:
    """All flows that move now. ``free`` stands for the bottleneck of those that have none yet.

    The guests of ``free`` are these flows themselves, with their bytes.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sequence = 0
        self.free = Link(self, inf)
        self.free.unfold()
        self._dirty: dict[Link, None] = {}
        self._late = False
        self._alarm = _Late(self)
        self._solver = Solver(self)

    def start(self, flow: Flow, nbytes: float) -> None:
        """Let ``nbytes`` move along ``flow.path``."""
        path = flow.path
        if self._late:
            self._wait(flow, nbytes)
            return
        if len(path) == 2:
            hub, spur = path
            if spur.users > hub.users:
                spur, hub = path
            own = hub.own
            if spur.sole is None and (own or hub.sole is None) and not (hub.by or hub.sat):
                level, room = hub.capacity / (own + 1), spur.capacity
                if level <= room and (room >= hub.capacity or self._room(spur, hub, level, 1, path)):
                    spur.sole = flow
                    hub.add(flow, nbytes, level)
                    return
        self._start(flow, nbytes)

    def _start(self, flow: Flow, nbytes: float) -> None:
        """``start``, wherever the bottleneck is and whoever else is on the path."""
        path = flow.path
        best, share = path[0], inf
        for link in path:
            if link.sole is not CROWD and link.sole is not None:
                link.unfold()
            part = link.capacity / (link.own + len(link.guests) + 1)
            if part < share or (part == share and link.users > best.users):
                best, share = link, part
        if best.by or best.sat:
            self._wait(flow, nbytes)
            return
        asked: dict[Link, None] = {}
        for link in path:
            crowded = link.own or link.guests or link.capacity < best.capacity
            if crowded and link is not best:
                if not self._room(link, best, share, 1, path):
                    self._wait(flow, nbytes)
                    self._dirty |= asked  # what they promise is for a level that does not come
                    return
                asked[link] = None
        for link in path:
            if link is best:
                continue
            if link.guests:
                link.guests[flow] = 0.0
                link.by[best] = link.by.get(best, 0) + 1
            else:
                link.sole = flow
        best.add(flow, nbytes, share)

    def _wait(self, flow: Flow, nbytes: float) -> None:
        """Let the end of the instant decide how fast ``flow`` is."""
        flow.hub, flow.entry = self.free, 0
        self.free.guests[flow] = nbytes
        self._call()

    def _call(self) -> None:
        """See to it that ``solve`` is called when everything else of this instant has happened."""
        if not self._late:
            self._late = True
            self.clock.at(self.clock._now, self._alarm, LATE)

    def _join(self) -> None:
        """Act at once on flows that are new in this instant, as far as they go where all flows belong.

        They are looked at together: one by one the first would take a link that the last leaves a share of.
        """
        fresh = self.free.guests
        for link in next(iter(fresh)).path:
            if link.own and (link.by or link.sat):
                return
        for end in (0, -1):
            hubs = {flow.path[end] for flow in fresh}
            if len(hubs) == 1:
                self._take(hubs.pop(), [*fresh])
                return
        counts: dict[Link, int] = {}
        for flow in fresh:
            for link in flow.path:
                if link.own and (link.by or link.sat):
                    return
                counts[link] = counts.get(link, 0) + 1
        shares = {link: link.capacity / (link.own + count) for link, count in counts.items()}
        groups: dict[Link, list[Flow]] = {}
        for flow in fresh:
            groups.setdefault(min(flow.path, key=shares.__getitem__), []).append(flow)
        for hub, flows in groups.items():
            if not self._take(hub, flows):
                return

    def _take(self, hub: Link, flows: list[Flow]) -> bool:
        """Let new ``flows`` belong to ``hub``, if all there are its own and they cross no other full link."""
        if hub.by or hub.sat or (hub.sole is not None and not hub.own):
            return False
        counts: dict[Link, int] = {}
        for flow in flows:
            for link in flow.path:
                if link is not hub:
                    if link.own:
                        return False
                    counts[link] = counts.get(link, 0) + 1
        sizes, now = self.free.guests, self.clock._now
        hub.advance(now)
        hub.level = level = hub.capacity / (hub.own + len(flows))
        for flow in flows:
            hub.adopt(flow, sizes.pop(flow))
            for link in flow.path:
                if link is hub:
                    continue
                if link.sole is None and counts[link] == 1:
                    link.sole = flow
                    continue
                if link.sole is not CROWD:
                    link.unfold()
                link.guests[flow] = 0.0
                link.by[hub] = link.by.get(hub, 0) + 1
        for link in counts:
            if link.sole is CROWD:
                room = self._room(link, hub, level)
            else:
                room = link.capacity >= hub.capacity or self._room(link, hub, level, 1, counts)
            if not room:
                self._dirty[link] = None
        if hub.monitors and hub.monitors[0][0] < level:
            hub.lift()
        hub.schedule(now)
        return True

    def _enrol(self, dirty: dict[Link, None]) -> None:
        """Put new flows on their links; ``dirty`` gets those at which they may find their bottleneck."""
        free, idle = self.free, []
        for flow in free.guests:
            full = False
            for link in flow.path:
                if link.sole is not CROWD:
                    link.unfold()
                link.guests[flow] = 0.0
                link.by[free] = link.by.get(free, 0) + 1
                if link.own:
                    dirty[link] = None
                    full = True
            if not full:
                idle.append(flow)
        for flow in idle:
            dirty[min(flow.path, key=lambda link: link.capacity / link.by[free])] = None

    def _room(
        self, link: Link, best: Link, level: float, more: int = 0, coming: Container[Link] = ()
    ) -> bool:
        """Whether all on ``link``, and ``more`` flows, leave room if those of ``best`` move at ``level``."""
        if link.own:
            return False
        if link.fits(best, level, more, coming):
            return True
        guests, top = len(link.guests) + more, level
        for hub in link.by:
            if hub is not best and hub.level > top:
                top = hub.level
        if top * guests > link.capacity:
            return False
        link.spread(guests, top)
        return link.fits(best, level, more, coming)

    def cancel(self, flow: Flow) -> None:
        """Take a flow off its links before its end; it never arrives."""
        free = self.free
        if flow.hub is not free:
            flow.hub.cancel(flow, self.clock._now)
            return
        del free.guests[flow]

    def left(self, flow: Flow) -> float:
        """Bytes of ``flow`` that have not passed yet."""
        hub = flow.hub
        if hub is self.free:
            return hub.guests[flow]
        return max(flow.key - hub.served - hub.level * (self.clock._now - hub.since), 0.0)

    def mark(self, link: Link) -> None:
        """``link`` must be looked at when everything else of this instant has happened."""
        self._call()
        self._dirty[link] = None

    def solve(self) -> None:
        """Work out what has changed in this instant."""
        fresh = self.free.guests
        if len(fresh) > 1 and not self._dirty:
            self._join()
        dirty, self._dirty = self._dirty, {}
        if fresh:
            self._enrol(dirty)
        if dirty:
            self._solver.settle(dirty, self.clock._now)
        self._late = False


class _Late(Alarm):
    """The end of an instant."""

    __slots__ = ("_fluid",)

    def __init__(self, fluid: Fluid) -> None:
        self._fluid = fluid

    def fire(self) -> None:
        self._fluid.solve()
