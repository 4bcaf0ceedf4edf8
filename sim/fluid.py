"""Flows over links at max-min fair rates, exact, at a cost that grows with what a change reaches.

Rules this module obeys:

* A flow's rate is max-min fair over all links of its path; it ends when its last byte has passed.
* Every flow belongs to its bottleneck: a link of its path that is full and on which no flow is faster
  (Bertsekas and Gallager, Data Networks, section 6.5.2). ``sim.link`` says how a link shares itself out.
* A change that reaches one link only, all of whose flows are its own and cross no other full link, is
  acted on at once. Everything else is worked out at the end of its instant, however many flows started
  or ended in it, by ``sim.maxmin``, and only for links that it reaches.
* A link with room to spare has *promised* rates to the links that its flows belong to: as long as no
  level exceeds the promise made to it, nothing need be looked at. ``monitors`` holds the promises that
  were made to a link, the least first.
"""

from __future__ import annotations

from math import inf

from sim.clock import LATE, Alarm, Clock
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
        self._alarm = _Late(self)
        self._solver = Solver(self)

    def start(self, flow: Flow, nbytes: float) -> None:
        """Let ``nbytes`` move along ``flow.path``."""
        path = flow.path
        if len(path) == 2 and not self._dirty:
            hub, spur = path
            if spur.users > hub.users:
                spur, hub = path
            own = hub.own
            if spur.sole is None and (own or hub.sole is None) and not (hub.by or hub.sat):
                level, room = hub.capacity / (own + 1), spur.capacity
                if level <= room and (room >= hub.capacity or self._room(spur, hub, level, path)):
                    spur.sole = flow
                    hub.add(flow, nbytes, level)
                    return
        self._start(flow, nbytes)

    def _start(self, flow: Flow, nbytes: float) -> None:
        """``start``, wherever the bottleneck is and whoever else is on the path."""
        path = flow.path
        best, share = path[0], inf
        for link in path:
            if link.sole is not CROWD:
                link.unfold()
            part = link.capacity / (link.own + len(link.guests) + 1)
            if part < share or (part == share and link.users > best.users):
                best, share = link, part
        if best.by or best.sat or self._dirty:
            self._wait(flow, nbytes)
            return
        for link in path:
            crowded = link.own or link.guests or link.capacity < best.capacity
            if crowded and link is not best and not self._room(link, best, share, path):
                self._wait(flow, nbytes)
                return
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
        free, full = self.free, False
        flow.hub, flow.entry = free, 0
        free.guests[flow] = nbytes
        dirty = self._dirty
        if not dirty:
            self.clock.at(self.clock._now, self._alarm, LATE)
        for link in flow.path:
            if link.sole is not CROWD:
                link.unfold()
            guests, by = link.guests, link.by
            guests[flow] = 0.0
            by[free] = by.get(free, 0) + 1
            if len(guests) > link.seats:
                dirty[link] = None
                if link.own:
                    full = True
        if not full:  # any of them may become its bottleneck
            for link in flow.path:
                dirty[link] = None

    def _room(self, link: Link, best: Link, level: float, path: tuple[Link, ...]) -> bool:
        """Whether a new flow on ``path`` that belongs to ``best``, at ``level``, leaves room on ``link``."""
        if link.own:
            return False
        if link.fits(best, level, path):
            return True
        guests, top = len(link.guests) + 1, level
        for hub in link.by:
            if hub is not best and hub.level > top:
                top = hub.level
        if top * guests > link.capacity:
            return False
        link.spread(guests, top)
        return link.fits(best, level, path)

    def cancel(self, flow: Flow) -> None:
        """Take a flow off its links before its end; it never arrives."""
        free = self.free
        if flow.hub is not free:
            flow.hub.cancel(flow, self.clock._now)
            return
        del free.guests[flow]
        for link in flow.path:
            free.part(link, flow)

    def left(self, flow: Flow) -> float:
        """Bytes of ``flow`` that have not passed yet."""
        hub = flow.hub
        if hub is self.free:
            return hub.guests[flow]
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
