"""Messages between nodes on machines with full-duplex NICs: who may move, when, and how fast.

Rules this module obeys:

* Messages of one (sender, receiver) pair move one at a time, in order. A message is delivered when
  its last byte is in the receiver's inbox. Nothing new of a pair starts while ``inbox`` of its
  messages lie unread.
* ``fair``: a message waits the path's latency plus the overhead, then shares all links of its path
  with everything that moves there.
* ``fifo`` (k = 1) or ``k``: at most k messages at once through a NIC direction. A node's messages
  leave in order; the head of its queue asks the receiver, which grants in order of request arrival
  once a slot is free at both ends. The request arrives one latency after the message was queued, or
  when its predecessor ends if that is later. A message refused for a full inbox steps aside, and
  what is behind it, to other receivers, goes on. From its grant on a message occupies its slots for
  the overhead and for its bytes; before that for a ``handover``, where it takes a slot over from a message
  of another connection that has just left it.
* Links with a ``burst`` are ahead after a pause, for messages that move alone (``sim.buckets``).
* Messages inside one machine use its local bandwidth and latency and no slot.
* Every operation costs O(log n) at most, however many requests are queued, withheld or put aside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappush
from math import inf
from typing import Any

from mypy_extensions import mypyc_attr

from sim.alarm import NORMAL
from sim.buckets import Savings
from sim.clock import Clock
from sim.endpoint import EMPTY, Endpoint, MachineLike
from sim.fluid import Flow, Fluid, Link
from sim.nic import Nic
from sim.phases import ASKING, CALLING, FLOWING, HELD, OVER, QUEUED, STALLED, STARTING, TIMED

__all__ = ["MachineLike", "Network", "Nic", "Pair", "Routes", "Transfer"]

Routes = Callable[[int, int], Sequence[tuple[str, float]]]
"""(machine from, machine to) -> further links on the path: (name, bytes/s) of each. It may have a method
``delay`` of the same arguments: (latency, overhead per message) that these links add, seconds."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Pair:
    """The connection from one node to another. ``spare`` carried its last message, and may carry the next.

    busy   cores that its messages keep busy while they move, or 0
    ended  when its last message left its slots, where hand-overs cost time
    """

    __slots__ = (
        "ahead", "behind", "busy", "bytes", "current", "direct", "ended", "latency", "lead", "messages",
        "network", "overhead", "path", "rate", "source", "spare", "target", "undelivered", "unread",
        "withheld",
    )  # fmt: skip

    def __init__(self, network: Network, source: Endpoint, target: Endpoint) -> None:
        self.network, self.source, self.target = network, source, target
        a, b = source.nic, target.nic
        extra = () if a is b else network.between(a, b)
        self.path = Link.lead((a.local,) if a is b else (a.up, *extra, b.down))
        further, overhead = (0.0, 0.0) if a is b else network.delay(a, b)
        self.latency = a.local_latency if a is b else a.latency + b.latency + further
        self.direct = a is b or network.slots == inf
        self.rate = 0.0 if self.direct or extra or network.slots > 1 else min(a.up.capacity, b.down.capacity)
        ends = (a.index, a.up.capacity, b.index, b.down.capacity)
        self.ahead = network.savings.path(*ends) if self.rate and network.savings is not None else None
        self.overhead = overhead = network.overhead + overhead
        self.busy = self.rate * network.byte_cost + network.moving if self.rate else 0.0
        self.current: Transfer | None = None
        self.spare: Transfer | None = None
        self.behind: deque[Transfer] = EMPTY
        self.withheld: tuple[float, int, Transfer] | None = None
        self.undelivered = self.unread = self.messages = 0
        self.ended = -inf
        self.bytes, self.lead = 0.0, self.latency + overhead

    def send(self, message: Any, nbytes: float) -> Transfer:
        """Queue a message; the caller has seen to the window."""
        transfer = self.network.carrier(self, message, nbytes)
        self.undelivered += 1
        source = self.source
        if not self.direct:
            if source.outstanding < self.network.slots and not source.queue:
                transfer.ask(True)
            else:
                source.line_up(transfer)
        elif self.current is None:
            self.current = transfer
            self.open()
        else:
            self.wait(transfer)
        return transfer

    def wait(self, transfer: Transfer) -> None:
        """Let ``transfer`` stand behind the current one."""
        if self.behind is EMPTY:
            self.behind = deque()
        self.behind.append(transfer)

    def open(self) -> None:
        """Start the current transfer without asking, if the inbox has room."""
        transfer = self.current
        assert transfer is not None
        if self.unread >= self.network.inbox:
            self.withheld = (0.0, 0, transfer)
            return
        transfer.phase = STARTING
        if self.lead > 0:
            self.network.clock.at(self.network.clock._now + self.lead, transfer)
        else:
            transfer.flow()

    def read(self) -> None:
        """The receiver has read one of the messages in its inbox."""
        self.unread -= 1
        if self.withheld is not None:
            self.readmit()

    def readmit(self) -> None:
        """The inbox has room again for the message that was withheld."""
        entry = self.withheld
        assert entry is not None
        self.withheld = None
        if self.direct:
            self.open()
        else:
            nic = self.target.nic
            heappush(nic.requests, entry)
            nic.grant()

    def due(self, now: float, nbytes: float) -> float:
        """When a message is delivered whose bytes have the path to themselves from ``now`` on."""
        return now + nbytes / self.rate if self.ahead is None else self.ahead.last(now, nbytes)

    def follow(self) -> None:
        """The current transfer is over: the next one's turn."""
        self.current = None
        if self.behind:
            transfer = self.behind.popleft()
            if self.direct:
                self.current = transfer
                self.open()
            else:
                transfer.ask(False)


@mypyc_attr(allow_interpreted_subclasses=True)
class Transfer(Flow):
    """One message on its way. ``began`` is when its bytes began to move, seconds."""

    __slots__ = ("began", "counted", "message", "nbytes", "pair", "phase", "queued")

    def __init__(self, pair: Pair, message: Any, nbytes: float) -> None:
        self.pair, self.message, self.nbytes = pair, message, nbytes
        self.path = pair.path
        self.queued = pair.network.clock._now
        self.phase = QUEUED
        self.counted = False

    def ask(self, counted: bool) -> None:
        """Ask the receiver for a grant; ``counted`` if it does so as head of its node's queue."""
        pair = self.pair
        if pair.current is not None:
            pair.wait(self)
            return
        pair.current = self
        if counted:
            self.counted = True
            pair.source.outstanding += 1
        network = pair.network
        now = network.clock._now
        arrival = self.queued + pair.latency
        if arrival < now:
            arrival = now
        if network.host is None or arrival == now:
            self.request(now, arrival + pair.source.late())
        else:
            self.phase = CALLING
            network.host.run(self, arrival - now, 1.0)

    def request(self, now: float, arrival: float) -> None:
        """Stand in the receiver's queue for a grant from ``arrival`` on."""
        pair = self.pair
        network = pair.network
        self.phase = ASKING
        network.sequence += 1
        nic = pair.target.nic
        heappush(nic.requests, (arrival, network.sequence, self))
        if nic.free_in:
            if arrival <= now:
                nic.grant()
            elif arrival < nic.wake:
                nic.wake = arrival
                network.clock.at(arrival, nic)

    def step_aside(self) -> None:
        """Let the messages behind it pass."""
        if self.counted:
            self.counted = False
            source = self.pair.source
            source.outstanding -= 1
            self.pair.network.advance(source)

    def move(self, now: float) -> None:
        """Granted: occupy the path for the overhead and the bytes."""
        pair, rest = self.pair, self.settling(now)
        if not rest:
            self.flow()
            return
        self.phase = STARTING
        if pair.busy and pair.network.elastic:
            pair.network.host.move(self, rest, pair.busy)
        else:
            pair.network.clock.at(now + rest, self)

    def settling(self, now: float) -> float:
        """Seconds that its slots rest if it is granted them now, before its bytes move."""
        pair = self.pair
        network = pair.network
        if network.handover:
            for last in (pair.target.nic.last_in, pair.source.nic.last_out):
                if last is not None and last is not pair and last.ended == now:
                    return network.handover + pair.overhead
        return pair.overhead

    def flow(self) -> None:
        """The overhead (if granted) or the latency as well (if not) is over: its bytes begin to move."""
        pair = self.pair
        network = pair.network
        now = network.clock._now
        self._depart(now)
        if not pair.rate:
            self.phase = FLOWING
            network.fluid.start(self, self.nbytes)
            return
        self.phase = TIMED
        due = pair.due(now, self.nbytes)
        if pair.ahead is not None:
            pair.ahead.spend(now, self.nbytes)
            if pair.busy:  # its bytes cost what they cost, however soon they have passed
                cost = network.byte_cost * self.nbytes
                pair.busy = (network.moving + cost / max(due - now, 1e-4)) or 1e-12
        if pair.busy:
            network.host.move(self, due - now, pair.busy, paced=not network.elastic)
            return
        heappush(network.clock._queue, (due, NORMAL, next(network.clock._eid), self))  # type: ignore[misc]

    def _depart(self, now: float) -> None:
        """Its bytes begin to move: both ends are told."""
        self.began = now
        source = self.pair.source
        if source.blocked and not source.out:
            source.turning(now)
        source.out += 1
        self.pair.target.receiving(self, now)

    def fire(self) -> None:
        if self.phase == TIMED:
            self.arrived()
        elif self.phase == STARTING:
            self.flow()
        elif self.phase == CALLING:
            now = self.pair.network.clock._now
            self.request(now, now + self.pair.source.late())

    def arrived(self) -> None:
        pair = self.pair
        source, target, network = pair.source, pair.target, pair.network
        now = network.clock._now
        self.phase = OVER
        if source.blocked and source.out == 1:
            source.turning(now)
        source.out -= 1
        target.received(self, now)
        pair.undelivered -= 1
        pair.unread += 1
        pair.messages += 1
        pair.bytes += self.nbytes
        if network.observer is not None:
            network.observer(self)
        if pair.direct:
            target.delivered(self)
            pair.current = None
            if pair.behind:
                pair.follow()
        else:
            source.nic.free_out += 1
            target.nic.free_in += 1
            if network.handover:
                source.nic.last_out = target.nic.last_in = pair
                pair.ended = now
            if self.counted:
                source.outstanding -= 1
            target.delivered(self)
            network.proceed(pair)
        if source.watching:
            source.released(self)


class Network:
    """Machines, their links, and all messages between the endpoints that are attached to them.

    ``observer``, if set, is called with every transfer at the moment of its delivery. ``host``, if
    set, is the processor that plays all machines: latency is work of its own, moving a byte costs
    ``byte_cost`` seconds, a message that moves keeps ``moving`` cores busy besides, and whoever takes a slot
    over from another connection waits for ``handover`` seconds. ``elastic`` transfers go slower when it is
    busy, from their overhead on; others have a pace of their own and go slower only where too many keep it
    busy, while their bytes move. ``connect`` makes the connections, ``carrier`` what carries a message,
    ``further`` are the links beyond the NICs that somebody's path leads over, by name.
    """

    def __init__(
        self,
        clock: Clock,
        machines: Sequence[MachineLike],
        *,
        admission: str | int = "fifo",
        inbox: float = 2,
        overhead: float = 0.0,
        burst: float = 0.0,
        routes: Routes | None = None,
    ) -> None:
        self.clock = clock
        self.fluid = Fluid(clock)
        self.slots: float = {"fifo": 1, "fair": inf}.get(admission, admission)  # type: ignore[arg-type]
        self.inbox, self.overhead = inbox, overhead
        self.savings = Savings(burst) if burst else None
        self.sequence = 0
        self.observer: Callable[[Transfer], None] | None = None
        self.nics = [Nic(self, i, machine) for i, machine in enumerate(machines)]
        self.host: Any = None
        self.byte_cost, self.moving, self.handover, self.elastic = 0.0, 0.0, 0.0, False
        self.connect: Callable[[Network, Any, Any], Pair] = Pair
        self.carrier: Callable[[Pair, Any, float], Transfer] = Transfer
        self._routes = routes
        self.further: dict[str, Link] = {}

    def attach(self, endpoint: Endpoint, machine: int) -> None:
        """Place ``endpoint`` on a machine."""
        endpoint.nic = self.nics[machine]

    def pair(self, source: Endpoint, target: Endpoint) -> Pair:
        """The connection from ``source`` to ``target``."""
        found = source.pairs.get(target.id)
        if found is None:
            found = source.pairs[target.id] = self.connect(self, source, target)
            if target.sources is not None:
                target.sources.append(source)
        return found

    def between(self, a: Nic, b: Nic) -> tuple[Link, ...]:
        """Further links between two machines."""
        if self._routes is None:
            return ()
        named = self._routes(a.index, b.index)
        for name, rate in named:
            if name not in self.further:
                self.further[name] = Link(self.fluid, rate)
        return tuple(self.further[name] for name, _ in named)

    def delay(self, a: Nic, b: Nic) -> tuple[float, float]:
        """Latency and overhead that these links add, seconds."""
        own = getattr(self._routes, "delay", None)
        return (0.0, 0.0) if own is None else own(a.index, b.index)

    def advance(self, source: Endpoint) -> None:
        """Let the messages at the head of a node's queue ask, as many as may."""
        queue, slots = source.queue, self.slots
        while queue and source.outstanding < slots:
            queue.popleft().ask(True)

    def proceed(self, pair: Pair) -> None:
        """A transfer of ``pair`` is over and its slots are free: whose turn is it?"""
        source, nic = pair.source, pair.target.nic
        pair.current = None
        if pair.behind:
            pair.follow()
        if source.nic.blocked:
            source.nic.unblock()
        if source.queue:
            self.advance(source)
        if nic.requests:
            nic.grant()

    def drop(self, endpoint: Endpoint, others: Sequence[Endpoint]) -> list[Transfer]:
        """Lose everything on its way from or to ``endpoint``; returns what was lost."""
        pairs = [*endpoint.pairs.values(), *(o.pairs[endpoint.id] for o in others if endpoint.id in o.pairs)]
        lost: list[Transfer] = list(endpoint.queue)
        endpoint.queue.clear()
        for pair in pairs:
            source = pair.source
            moving = pair.current is not None and pair.current.phase != HELD
            if pair.undelivered > len(pair.behind) + moving:
                lost += [transfer for transfer in source.queue if transfer.pair is pair]
                source.queue = deque(transfer for transfer in source.queue if transfer.pair is not pair)
            lost += pair.behind
            pair.behind.clear()
        current = [pair.current for pair in pairs if pair.current is not None and pair.current.phase != HELD]
        for transfer in current:
            self.stop(transfer)
        for transfer in lost:
            transfer.phase = OVER
            transfer.pair.undelivered -= 1
        for transfer in lost + current:
            if transfer.pair.source.watching:
                transfer.pair.source.released(transfer)
        return lost + current

    def stop(self, transfer: Transfer) -> None:
        """Lose the current transfer of a pair, in whatever phase it is."""
        pair, phase, now = transfer.pair, transfer.phase, self.clock._now
        transfer.phase = OVER
        pair.undelivered -= 1
        pair.withheld = None
        moving = phase in (TIMED, FLOWING)
        if phase == FLOWING:
            self.fluid.cancel(transfer)
        if phase == CALLING or (phase in (STARTING, TIMED) and pair.busy):
            self.host.cancel(transfer)
        if moving:
            if pair.source.blocked and pair.source.out == 1:
                pair.source.turning(now)
            pair.source.out -= 1
            pair.target.received(transfer, now)
        if (moving or phase in (STARTING, STALLED)) and not pair.direct:
            pair.source.nic.free_out += 1
            pair.target.nic.free_in += 1
        if transfer.counted:
            transfer.counted = False
            pair.source.outstanding -= 1
        if pair.direct:
            pair.current = None
        else:
            self.proceed(pair)
