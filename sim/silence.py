"""Messages on paths that fall silent and come to again: what rests, where, and how it goes on.

Rules this module obeys:

* While either end of a connection is silent (frozen, or cut off), nothing of it moves, and nothing is lost.
* What moves keeps its slots at both ends and goes on with the bytes that are left: the other end cannot know
  that nothing will come for a while. A request that has reached a receiver which is not silent is granted
  all the same, and keeps the slots, too. A silent receiver grants nothing.
* What is in its latency or overhead rests there. Requests go on in the order in which they were made.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappush
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from sim.alarm import NORMAL
from sim.network import Network, Pair, Transfer
from sim.phases import ASKING, FLOWING, OVER, PARKED, STALLED, STARTING, TIMED

if TYPE_CHECKING:
    from sim.endpoint import Endpoint

__all__ = ["RestingPair", "hush", "resting", "restore"]

WHOLE = -1
"""In place of a phase: it has not begun to move yet."""


class _Silent(Protocol):
    """An endpoint that may be silent."""

    @property
    def silent(self) -> bool: ...


class RestingPair(Pair):
    """A connection that can rest."""

    __slots__ = ()

    @property
    def silent(self) -> bool:
        """Whether nothing moves."""
        ends: tuple[Any, Any] = (self.source, self.target)
        return bool(ends[0].silent or ends[1].silent)

    def open(self) -> None:
        transfer = self.current
        assert isinstance(transfer, RestingTransfer)
        delay = self.latency + self.overhead
        if self.silent and self.unread < self.network.inbox:
            transfer.park(STARTING, delay)
            return
        transfer.due = self.network.clock._now + delay
        super().open()

    def readmit(self) -> None:
        if not self.silent:
            super().readmit()

    def hush(self) -> None:
        """An end has fallen silent: what is under way rests."""
        transfer = self.current
        if not isinstance(transfer, RestingTransfer):
            return
        now, phase = self.network.clock._now, transfer.phase
        if phase == ASKING:
            if self.withheld is None:
                self._hush_request(transfer, now)
        elif phase == FLOWING:
            left = self.network.fluid.left(transfer)
            self.network.fluid.cancel(transfer)
            self.bytes += transfer.nbytes - left
            self._replace(transfer, left).rest_in_slots(FLOWING, 0.0)
        elif phase in (STARTING, TIMED):
            carried = self.busy and (self.network.elastic or phase == TIMED)
            rest = self.network.host.cancel(transfer) if carried else max(transfer.due - now, 0.0)
            self._replace(transfer, transfer.nbytes, phase == TIMED).rest_in_slots(phase, rest)

    def _hush_request(self, transfer: RestingTransfer, now: float) -> None:
        """A request under way rests; so does one that a silent receiver has."""
        rest = max(transfer.due - now, 0.0)
        target: Any = self.target
        if rest or target.silent:
            self._replace(transfer, transfer.nbytes, moving=False).park(ASKING, rest)

    def _replace(self, old: RestingTransfer, left: float, moving: bool = True) -> RestingTransfer:
        """Another transfer with the bytes that are left: alarms of the old one mean nothing any more."""
        new: Any = self.network.carrier(self, old.message, left)
        new.queued, new.began, new.counted = old.queued, getattr(old, "began", old.queued), old.counted
        self.current = new
        if moving:
            now, source = self.network.clock._now, self.source
            if source.blocked and source.out == 1:
                source.turning(now)
            source.out -= 1
            self.target.received(old, now)
        old.phase, old.counted = OVER, False
        resting: RestingTransfer = new
        return resting

    def go_on(self) -> None:
        """Neither end is silent any more."""
        transfer = self.current
        if isinstance(transfer, RestingTransfer) and transfer.phase in (PARKED, STALLED):
            transfer.go_on()
        elif self.withheld is not None and self.unread < self.network.inbox:
            self.readmit()


class RestingTransfer(Transfer):
    """A message that can rest: in phase ``at``, with ``rest`` seconds of it to go.

    due  when its request arrives, or its latency or overhead is over, or (if it moves alone) its bytes are
    """

    __slots__ = ("at", "due", "rest")

    pair: RestingPair

    def park(self, at: int, rest: float) -> None:
        """Wait, without slots."""
        self.phase, self.at, self.rest = PARKED, at, rest

    def rest_in_slots(self, at: int, rest: float) -> None:
        """Wait; where grants are given, in the slots that it has."""
        self.phase, self.at, self.rest = PARKED if self.pair.direct else STALLED, at, rest

    def request(self, now: float, arrival: float) -> None:
        if self.pair.silent:
            self.park(ASKING, arrival - now)
        else:
            self.due = arrival
            super().request(now, arrival)

    def move(self, now: float) -> None:
        pair = self.pair
        if pair.silent:
            self.rest_in_slots(WHOLE, 0.0)
            return
        self.due = now + self.settling(now)
        super().move(now)

    def flow(self) -> None:
        pair = self.pair
        if pair.rate:
            self.due = pair.due(pair.network.clock._now, self.nbytes)
        super().flow()

    def go_on(self) -> None:
        """Go on where it rested."""
        pair, clock = self.pair, self.pair.network.clock
        now = clock._now
        if self.at == ASKING:
            self.due = now + self.rest
            super().request(now, self.due)
        elif self.at == WHOLE:
            self.move(now)
        elif pair.direct and self.at == FLOWING:
            began = self.began
            self.flow()
            self.began = began
        elif pair.direct:
            self.phase, self.due = STARTING, now + self.rest
            clock.at(self.due, self)
        else:
            self._move_on(now)

    def _move_on(self, now: float) -> None:
        """Occupy its path again, for what is left."""
        pair, at, began = self.pair, self.at, self.began
        network = pair.network
        if at != STARTING:
            self._depart(now)
            self.began = began
        self.phase, self.due = at, now + self.rest
        if at == FLOWING:
            network.fluid.start(self, self.nbytes)
            return
        if pair.busy and (network.elastic or at == TIMED):
            network.host.move(self, self.rest, pair.busy, paced=not network.elastic)
            return
        heappush(network.clock._queue, (self.due, NORMAL, next(network.clock._eid), self))  # type: ignore[misc]


def _around(endpoint: Endpoint, callers: Iterable[Endpoint]) -> list[Any]:
    return [*endpoint.pairs.values(), *(caller.pairs[endpoint.id] for caller in callers)]


def hush(endpoint: Endpoint, callers: Iterable[Endpoint]) -> None:
    """``endpoint`` has fallen silent; ``callers`` have a connection to it."""
    for pair in _around(endpoint, callers):
        pair.hush()


def restore(endpoint: Endpoint, callers: Iterable[Endpoint]) -> None:
    """``endpoint`` is silent no more."""
    pairs = _around(endpoint, callers)
    for pair in sorted(pairs, key=lambda pair: inf if pair.current is None else pair.current.queued):
        if not pair.silent:
            pair.go_on()


def resting(network: Network) -> None:
    """Let all that will be sent through ``network`` be able to rest."""
    network.connect, network.carrier = RestingPair, RestingTransfer
