"""Max-min fair rates after a change, worked out only for links that the change reaches.

Rules this module obeys:

* The state is a *level* for each link: the rate of the flows that belong to it, infinite if it has room
  to spare. A flow's rate is the least level on its path. Rates are max-min fair if and only if every
  link is *settled*: its level is the water level w with sum of min(w, what the flow may have elsewhere)
  = capacity, or infinite where no w fills it. (Then every flow's link is full, and no flow on it is
  faster: Bertsekas and Gallager, Data Networks, section 6.5.2.)
* Links are settled in order of the lesser of their level and their water level. The water level of a
  link depends on lower levels only, so what is settled in this order stays settled, as in the
  incremental search for shortest paths (Koenig and Likhachev, Lifelong planning A*, 2004). A change
  never reaches a link with a lower level than its own; it ends where levels come out as they were.
* The capacity over the number of flows is a lower bound of the water level; links wait with it for
  their turn, and are worked out when it has come. Where only levels have changed, and no flow has
  come, gone or changed hands, their turn is known to rounding (``Link.guess``).
* All sums are made anew from the levels: no rounding adds up over time.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from sim.link import CROWD

if TYPE_CHECKING:
    from sim.fluid import Fluid
    from sim.link import Flow, Link

__all__ = ["Solver"]

FULL = 1 + 1e-12
"""A link is overfull if its flows exceed its capacity by this factor."""

FASTER = 1 + 1e-13
"""A rate exceeds another if it does so by this factor; less than ``FULL``, so that an overfull link has
flows that are faster than its water level."""

SAME = 1e-14
"""Levels that differ by less, relatively, are taken for the same."""


class Solver:
    """Settles links."""

    def __init__(self, fluid: Fluid) -> None:
        self._free = fluid.free
        self._queue: list[tuple[float, int, Link]] = []
        self._changed: dict[Link, None] = {}
        self._floor = self._now = 0.0
        self._sequence = 0

    def settle(self, links: dict[Link, None], now: float) -> None:
        """Settle ``links`` and what their levels reach; let the flows go on at the new rates."""
        queue = self._queue
        self._changed, self._now, self._floor = links, now, 0.0
        for link in tuple(links):
            self._line_up(link)
        while queue:
            turn, _, link = heappop(queue)
            if turn != link.turn:
                continue
            link.turn = inf
            level, water = link.level, link.found or self._water(link)
            moves = water < 0
            if moves:
                water = -water
            elif water == level or abs(water - level) <= SAME * water < inf:
                continue
            least = min(water, level)
            if queue and least > queue[0][0]:
                link.turn, link.guess = least, water
                if link.own and not moves:
                    link.found = water
                self._sequence += 1
                heappush(queue, (least, self._sequence, link))
                continue
            self._floor = least
            self._set(link, water, moves)
        for link in self._changed:
            if link.own:
                link.schedule(now)

    def _line_up(self, link: Link) -> None:
        """Let ``link`` be looked at when its turn has come, or earlier."""
        link.found = 0.0
        floor = self._floor
        if link.turn <= floor:
            return
        if link.sole is not CROWD:
            if link.sole is None:
                return
            link.unfold()
        turn, level = link.capacity / (link.own + len(link.guests)), link.level
        if level < turn:
            turn = level
        link.guess = turn
        if turn < floor:
            turn = floor
        if turn < link.turn:
            link.turn = turn
            self._sequence = sequence = self._sequence + 1
            heappush(self._queue, (turn, sequence, link))

    def _press(self, link: Link, load: float) -> None:
        """Guests of the full ``link`` take up ``load`` bytes/s more: let it be looked at in its turn.

        As long as no flow changes hands, its water level is what ``guess`` says, up to rounding.
        """
        link.found = 0.0
        floor, turn, level = self._floor, link.turn, link.level
        if turn <= floor:
            return
        link.guess = guess = (level if turn == inf else link.guess) - load / link.own
        least = min(level, guess)
        if least < floor:
            least = floor
        if least < turn:
            link.turn = least
            self._sequence = sequence = self._sequence + 1
            heappush(self._queue, (least, sequence, link))

    def _water(self, link: Link) -> float:
        """The water level of ``link`` at the levels of the others; negative if flows must change hands."""
        by, own, free = link.by, link.own, self._free
        load = top = 0.0
        fresh = by.get(free, 0)
        if fresh:
            for hub, count in by.items():
                if hub is not free:
                    level = hub.level
                    load += level * count
                    if level > top:
                        top = level
        elif own:
            for hub, count in by.items():
                level = hub.level
                load += level * count
                if level > top:
                    top = level
        else:
            return self._spare(link)
        water = (link.capacity - load) / (own + fresh)
        if top > water * FASTER:
            return -_fill(link)
        for other in link.sat:
            if water > other.level * FASTER:
                return -_fill(link)
        return -water if fresh else water

    def _spare(self, link: Link) -> float:
        """``_water`` of a link of guests only; promises them what is not, or no longer, promised."""
        capacity, guests, by = link.capacity, len(link.guests), link.by
        top = max([hub.level for hub in by])
        if top * guests <= capacity:
            link.spread(guests, top)
            return inf
        link.seats = 0
        held = link.promises
        promised = asked = 0.0
        lacking = []
        for hub, count in by.items():
            rate = held.get(hub)
            if rate is None or rate < hub.level:
                lacking.append(hub)
                asked += hub.level * count
            else:
                promised += rate * count
        if promised + asked > capacity:
            lacking = list(by)
            promised, asked = 0.0, sum([hub.level * count for hub, count in by.items()])
            if asked > capacity * FULL:
                return -_fill(link)
        if lacking:
            # half of what is left for them: who comes next shall find some
            share = max((capacity - promised) / asked, 1.0)
            share = (1.0 + share) / 2
            for hub in lacking:
                hub.monitor(link, min(hub.level * share, hub.capacity))
        return inf

    def _set(self, link: Link, water: float, moves: bool) -> None:
        """Give ``link`` a new level; with ``moves``, let the right flows belong to it."""
        link.advance(self._now)
        rise = water - link.level
        if moves or rise > 0:
            self._changed[link] = None
        else:
            link.slow()
        link.level = water
        if moves:
            self._exchange(link, water)
            if not link.own:
                return
            for other in link.sat:
                self._line_up(other)
        else:
            for other in link.sat:
                self._press(other, rise * other.by[link])
        if link.monitors and link.monitors[0][0] < water:
            for other in link.exceeded():
                self._line_up(other)

    def _exchange(self, link: Link, water: float) -> None:
        """Faster flows now belong to ``link``, and its own to links that make them slower."""
        free = self._free
        if not link.own:
            link.promises.clear()
            link.seats = 0
            for hub in link.by:
                if hub is not free:
                    hub.meet(link)
        link.turn = 0.0  # what comes is in its level already: no look for that
        for hub in [hub for hub in link.by if hub.level > water * FASTER]:
            if hub is free:
                self._admit(link)
            else:
                for flow in _common(link, hub):
                    self._move(flow, link)
        link.turn = inf
        for other in [other for other in link.sat if other.level * FASTER < water]:
            for flow in _common(other, link):
                self._move(flow, _slowest(flow, link))

    def _admit(self, link: Link) -> None:
        """The new flows on ``link`` belong to it."""
        free = self._free
        for flow in _common(link, free):
            for other in flow.path:
                by = other.by
                count = by[free]
                if count == 1:
                    del by[free]
                else:
                    by[free] = count - 1
                if other is not link:
                    by[link] = by.get(link, 0) + 1
                    if other.own:
                        link.meet(other)
                    elif other.turn == inf and not other.fits(link, link.level):
                        self._line_up(other)
            del link.guests[flow]
            link.adopt(flow, free.guests.pop(flow))

    def _move(self, flow: Flow, to: Link) -> None:
        """Let ``flow`` belong to ``to``."""
        source, path = flow.hub, flow.path
        to.advance(self._now)
        left = max(flow.key - source.advance(self._now), 0.0)
        source.lose()
        self._changed[source] = self._changed[to] = None
        for link in path:
            if link.sole is not CROWD:
                link.unfold()
            if link is source:
                link.guests[flow] = 0.0
            else:
                by = link.by
                count = by[source]
                if count == 1:
                    del by[source]
                    source.sat.pop(link, None)
                else:
                    by[source] = count - 1
            if link is not to:
                by = link.by
                others = by.get(to, 0)
                by[to] = others + 1
                if link.own:
                    to.meet(link)
                elif link is not source:
                    if link.fits(to, to.level):
                        continue
                    held = link.promises
                    most = held.get(source, 0.0)
                    if others:
                        if to.level <= held.get(to, inf) <= most:
                            continue
                    elif to.level <= most and not link.seats:
                        to.monitor(link, most)
                        continue
            self._line_up(link)
        if source.own == 0:
            source.clear()
        del to.guests[flow]
        to.adopt(flow, left)


def _common(link: Link, hub: Link) -> list[Flow]:
    """Flows that cross ``link`` and belong to ``hub``."""
    guests = link.guests
    if hub.own:
        if len(hub.line) < len(guests):
            return [flow for flow in hub.residents() if link in flow.path]
    elif len(hub.guests) < len(guests):  # hub is free
        return [flow for flow in hub.guests if flow.hub is hub and link in flow.path]
    return [flow for flow in guests if flow.hub is hub]


def _slowest(flow: Flow, link: Link) -> Link:
    """The link on the flow's path besides ``link`` that has the least level, the first of them."""
    found, least = link, inf
    for other in flow.path:
        if other is not link and other.level < least:
            found, least = other, other.level
    return found


def _fill(link: Link) -> float:
    """The water level of ``link``, whatever belongs to it."""
    limits = [(hub.level, count) for hub, count in link.by.items()]
    slower = dict.fromkeys(link.sat)
    while True:
        limits.sort()
        left, count = link.capacity, link.own + len(link.guests)
        for level, flows in limits:
            if level * count >= left:
                break
            left -= level * flows
            count -= flows
        water = left / count if count else inf
        # Its own flows, if full links that they cross besides are below that.
        below = [other for other in slower if other.level * FASTER < water]
        if not below:
            return water
        for other in below:
            del slower[other]
            flows = sum(_slowest(flow, link) is other for flow in _common(other, link))
            limits.append((other.level, flows))
