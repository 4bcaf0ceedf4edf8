"""Links, and the flows that belong to them: who stands in line, who is a guest, when the next one ends.

Rules this module obeys (``sim.fluid`` says what they rest on):

* The flows that belong to a link, its *own*, all move at its ``level``; to the other links on their path they
  are *guests*. They share it by virtual time: ``served`` counts the bytes that each of them has received
  since the link last had none, a flow ends when ``served`` reaches its key, and starting or ending one costs
  O(log n) (Parekh and Gallager 1993, section II, with equal weights).
* Who ends first stands first in the link's line: in order of arrival as long as keys rise (flows of one
  size), which costs O(1), else in a heap.
* Most links are crossed by one flow at most, whose bottleneck is elsewhere. Such a link knows that flow
  (``sole``) and nothing else.
* A flow that ends where all flows are the link's own and cross no other full link is acted on at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator
from heapq import heapify, heappop, heappush
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

from mypy_extensions import mypyc_attr

from sim.alarm import NORMAL, Alarm

if TYPE_CHECKING:
    from sim.fluid import Fluid

__all__ = ["CROWD", "Flow", "Link"]


NOBODY: dict[Flow, float] = {}
NO_HUBS: dict[Link, int] = {}
NO_LINE: deque[tuple[float, int, Flow]] = deque()
NONE_FULL: dict[Link, None] = {}
NO_PROMISES: dict[Link, float] = {}
UNWATCHED: list[tuple[float, int, Link]] = []
"""What links have that never needed one of their own: shared, and never put into."""


class Link(Alarm):
    """One direction of a NIC, a rack's uplink, a machine's memory bus: ``capacity`` in bytes/s.

    users     connections that lead over it; where shares are equal, the link with more becomes the bottleneck
    sole      None if nothing crosses it, the flow if there is just one and it belongs elsewhere; else
              ``CROWD``, and then ``own``, ``guests`` and ``by`` tell
    own       how many flows belong to it; it is full if there are any
    guests    the other flows that cross it
    by        how many guests belong to which link
    level     rate of its own flows, bytes/s; infinite if there are none
    sat       full links that its own flows cross besides
    promises  rate up to which flows of another link leave room here, by that link
    seats     so many guests at ``share`` bytes/s each leave room here, and no promise is for more; 0 where
              guests were promised this or that
    monitors  (rate promised, tie-breaker, by which link) to its own flows
    turn      where it stands in the solver's queue; infinite if it does not
    found     what the solver has found its level to be, not acted on yet; 0 if nothing
    guess     what its level will be as far as the solver can tell without a look, while it is in the queue
    """

    __slots__ = (
        "_due", "_exact", "_fluid", "_rising", "by", "capacity", "found", "guess", "guests", "level", "line",
        "monitors", "own", "promises", "sat", "seats", "served", "share", "since", "sole", "turn", "users",
    )  # fmt: skip

    def __init__(self, fluid: Fluid, capacity: float) -> None:
        self._fluid, self.capacity = fluid, capacity
        self.sole: Flow | None = None
        self.guests = NOBODY
        self.by = NO_HUBS
        self.sat = NONE_FULL
        self.promises = NO_PROMISES
        self.monitors = UNWATCHED
        self.line: Any = NO_LINE
        self._rising = True
        self.own = self.users = self.seats = 0
        self.level = self.turn = self._due = inf
        self.served = self.since = self.found = self.guess = self.share = 0.0
        self._exact = False

    @staticmethod
    def lead(path: tuple[Link, ...]) -> tuple[Link, ...]:
        """``path``, counted as one more connection over its links."""
        for link in path:
            link.users += 1
        return path

    @property
    def flows(self) -> list[Flow]:
        """All that cross it now."""
        sole = self.sole
        if sole is CROWD:
            return [*self.residents(), *self.guests]
        return [] if sole is None else [sole]

    def residents(self) -> Iterator[Flow]:
        """The flows that belong to it."""
        return (flow for _, entry, flow in self.line if flow.entry == entry)

    def unfold(self) -> None:
        """From now on it knows its flows one by one."""
        sole = self.sole
        if self.guests is NOBODY:
            self.guests, self.by = {}, {}
        self.sole = CROWD
        if sole is not None and sole is not CROWD:
            self.guests[sole] = 0.0
            self.by[sole.hub] = 1
            if self.promises.get(sole.hub, inf) > self.share:
                self.seats = 0

    def _enter(self) -> None:
        """The first flow of its own is about to come."""
        self.seats = 0
        if self.line is NO_LINE:
            self.line = deque()
        if self.sole is not CROWD:
            self.unfold()

    def _insert(self, key: float, entry: int, flow: Flow) -> None:
        """Let a flow of its own stand in line."""
        line = self.line
        if self._rising:
            if not line or key >= line[-1][0]:
                line.append((key, entry, flow))
                return
            self.line = line = [*line]  # a sorted list is a heap
            self._rising = False
        heappush(line, (key, entry, flow))

    def _first(self) -> float:
        """Key of the flow that ends first; those before it that have gone leave the line."""
        line = self.line
        while line[0][2].entry != line[0][1]:
            if self._rising:
                line.popleft()
            else:
                heappop(line)
        key: float = line[0][0]
        return key

    def add(self, flow: Flow, nbytes: float, level: float) -> None:
        """One more flow of its own; all of them move at ``level`` from now on."""
        fluid = self._fluid
        clock = fluid.clock
        now = clock._now
        own, served = self.own, self.served
        if own:
            self.served = served = served + self.level * (now - self.since)
        else:
            self._enter()
        self.since, self.own, self.level = now, own + 1, level
        fluid.sequence = entry = fluid.sequence + 1
        flow.hub, flow.entry = self, entry
        if not own and self.monitors and self.monitors[0][0] < level:
            self.lift()
        flow.key = key = served + nbytes
        line = self.line
        if self._rising and (not own or key >= line[-1][0]):
            line.append((key, entry, flow))
            if own:  # those before it end later than they would have
                self._exact = False
                return
        else:
            self._insert(key, entry, flow)
            line = self.line
        key, entry, first = line[0]
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
        if not self.own:
            self._enter()
        self.own += 1
        self._insert(flow.key, fluid.sequence, flow)
        line = self.line
        if len(line) > 4 * self.own + 64:
            kept = [item for item in line if item[2].entry == item[1]]
            if self._rising:
                self.line = deque(kept)
            else:
                heapify(kept)
                self.line = kept

    def slow(self) -> None:
        """All its own flows go slower: its alarm goes off too early."""
        self._exact = False

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
        due = max(now + (self._first() - self.served) / self.level, now)
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
        if not self._exact:
            self.served = served = self.served + self.level * (now - self.since)
            self.since = now
            due = now + (self._first() - served) / self.level
            if due > now:
                self._due, self._exact = due, True
                heappush(clock._queue, (due, NORMAL, next(clock._eid), self))  # type: ignore[misc]
                return
        line = self.line
        served, _, flow = line.popleft() if self._rising else heappop(line)
        self.served, self.since = served, now
        if line and line[0][0] <= served:
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
            if link is not self:
                if link.sole is flow:
                    link.sole = None
                else:
                    self.part(link, flow)
        flow.entry = 0
        self.own = own = self.own - 1
        line = self.line
        if not own:
            self.sole = None
            self.level = inf
            self.served = 0.0
            line.clear()
            return
        self.level = level = self.capacity / own
        if self.monitors and self.monitors[0][0] < level:
            self.lift()
        key, entry, first = line[0]
        if first.entry == entry:
            clock = self._fluid.clock
            self._due = due = now + (key - self.served) / level
            self._exact = True
            heappush(clock._queue, (due, NORMAL, next(clock._eid), self))  # type: ignore[misc]
        else:
            self.schedule(now)

    def _others(self, served: float) -> Iterator[Flow]:
        """Further flows that end at this instant."""
        line = self.line
        while line and line[0][0] <= served:
            _, entry, flow = line.popleft() if self._rising else heappop(line)
            if flow.entry == entry:
                yield flow

    def _release(self, flow: Flow) -> None:
        """Take a flow of its own off all links."""
        flow.entry = 0
        self.own -= 1
        for link in flow.path:
            if link is not self:
                self.part(link, flow)
        if not self.own and not self.guests:
            self.sole = None

    def part(self, link: Link, flow: Flow) -> None:
        """``flow``, which belongs to this link and is a guest at ``link``, goes from there."""
        if link.sole is flow:
            link.sole = None
            return
        del link.guests[flow]
        count = link.by[self]
        if count > 1:
            link.by[self] = count - 1
        else:
            del link.by[self]
        if link.own:
            if count == 1:
                self.sat.pop(link, None)
            self._fluid.mark(link)
        elif not link.guests:
            link.sole = None

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
            self.level = level = self.capacity / own
            if self.monitors and self.monitors[0][0] < level:
                self.lift()
            self.schedule(now)

    def lift(self) -> None:
        """Its level has risen: links that promised less must be looked at, unless they have room."""
        for link in self.exceeded():
            self._fluid.mark(link)

    def exceeded(self) -> list[Link]:
        """Links without room for its own flows at its present level; the others promise that much."""
        monitors, level = self.monitors, self.level
        lacking = []
        while monitors and monitors[0][0] < level:
            rate, _, link = heappop(monitors)
            if link.promises.get(self) == rate:
                del link.promises[self]
                if not link.renew(self):
                    lacking.append(link)
        return lacking

    def clear(self) -> None:
        """It has no flows of its own any more: it is not full."""
        self.level = self._due = inf
        self.served = self.since = 0.0
        self.line.clear()
        for other in self.by:
            other.sat.pop(self, None)

    def meet(self, link: Link) -> None:
        """One of its own flows crosses ``link``, which is full."""
        if self.sat is NONE_FULL:
            self.sat = {}
        self.sat[link] = None

    def monitor(self, link: Link, rate: float, coming: Container[Link] = ()) -> None:
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

    def spread(self, guests: int, top: float) -> None:
        """Promise all its guests the same. There are ``guests`` of them, the fastest has ``top`` bytes/s.

        Of the room that is left as much is for more guests as is for faster ones.
        """
        self.seats = max(int(sqrt(guests * (self.capacity / top))), guests)
        self.share = share = max(self.capacity / self.seats, top)  # rounding must not make it less
        promises = self.promises
        for hub in self.by:
            if not hub.level <= promises.get(hub, 0.0) <= share:
                hub.monitor(self, share)

    def fits(self, hub: Link, level: float, more: int = 0, coming: Container[Link] = ()) -> bool:
        """Whether guests may belong to ``hub``, at ``level``, without another look; ``more`` are yet to come.

        Their paths are in ``coming``.
        """
        if len(self.guests) + more > self.seats:
            return False
        share = self.share
        if not level <= self.promises.get(hub, 0.0) <= share:
            if level > share:
                return False
            hub.monitor(self, share, coming)
        return True

    def renew(self, hub: Link) -> bool:
        """Whether the guests that belong to ``hub`` leave room, although it goes faster than was promised."""
        if self.own:  # full: its level depends on theirs, and it is looked at in any case
            return True
        sole = self.sole
        if sole is not CROWD:
            if sole is None or sole.hub is not hub:
                return True
            if hub.level > self.capacity:
                return False
            hub.monitor(self, self.capacity)
            return True
        count = self.by.get(hub)
        if count is None:
            return True
        level, promises, guests = hub.level, self.promises, len(self.guests)
        if guests <= self.seats:
            if level <= self.share:
                hub.monitor(self, self.share)
                return True
            if level * guests <= self.capacity:  # all others have less: it is the fastest
                self.spread(guests, level)
                return True
        left = self.capacity - level * count
        for other, others in self.by.items():
            if other is not hub:
                left -= promises.get(other, inf) * others
        if left < 0:
            return False
        self.seats = 0
        hub.monitor(self, level + left / (2 * count))
        return True

    def _forget(self, coming: Container[Link]) -> None:
        """Keep one entry for each promise, and no promises of links that its own flows no longer cross."""
        kept: dict[Link, tuple[float, int, Link]] = {}
        for item in self.monitors:
            rate, _, link = item
            if link.promises.get(self) == rate:
                sole = link.sole
                crossed = sole.hub is self if sole is not None and sole is not CROWD else self in link.by
                if crossed or link in coming:
                    kept[link] = item
                else:
                    del link.promises[self]
        self.monitors = [*kept.values()]
        heapify(self.monitors)


@mypyc_attr(allow_interpreted_subclasses=True)
class Flow(Alarm):
    """Bytes on their way over ``path``; subclasses say in ``arrived`` what follows the last one.

    ``hub`` is the link that it belongs to, ``key`` is where it ends there, and ``entry`` tells its place in
    that link's line from older ones.
    """

    __slots__ = ("entry", "hub", "key", "path")

    path: tuple[Link, ...]
    hub: Link
    key: float
    entry: int

    def arrived(self) -> None:
        """The last byte has passed."""
        raise NotImplementedError


CROWD = Flow()
"""In place of a link's sole flow: there may be others, or flows of its own."""
