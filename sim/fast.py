"""The short way: programs and messages of the common kinds with their steps written out in one piece.

Rules this module obeys:

* Everything here does what its base class does, event by event and sum by sum: the record is the same
  to the last byte. ``Driver(shortcuts=False)`` takes the base classes for everything; a test holds the
  two against each other. What is not of the common kind goes to the base class.
* Common is: a program that sends where nobody has left, or receives by one tag; a message that moves
  alone through both of its NICs (``fifo``), or one that is shared out by max-min (``fair``), between
  hosts that play on no shared processor.
"""

from __future__ import annotations

from collections import deque
from heapq import heappush
from math import inf
from typing import TYPE_CHECKING, Any

from core.effects import Compute, Effect, Poll, Receive, Send, TrySend
from core.node import MODEL, Finished, Message
from core.record import PARTS
from sim.alarm import NORMAL
from sim.host import Entry, Host, matches
from sim.network import Network, Pair, Transfer
from sim.phases import ASKING, FLOWING, OVER, QUEUED, STARTING, TIMED
from sim.programs import BLOCKED, COMPUTING, FINISHED, NEWS, PAYING, RECEIVING, RETURN, RUNNING, Pump

if TYPE_CHECKING:
    from core.node import Program
    from sim.driver import Driver

__all__ = ["FastPump", "fast_pair"]

COMPUTE, UPDATE = PARTS.index("compute"), PARTS.index("update")


class FastPump(Pump):
    """A program whose commonest effects are acted on in place."""

    __slots__ = ("_alone", "_clock", "_plain", "_simple", "_tensors", "_window")

    def __init__(self, driver: Driver, host: Host, generator: Program, main: bool) -> None:
        super().__init__(driver, host, generator, main)
        self._clock, self._tensors, self._window = driver.clock, host.tensors, driver.window
        self._alone = driver.processor is None
        extra = driver.cold or driver.copying or driver.numerics is not None or host.device is not None
        self._simple = self._alone and not extra
        self._plain: Receive | None = None

    def fire(self) -> None:
        state = self.state
        if state == COMPUTING and self._simple:
            host, now = self.host, self._clock._now
            self.state = RUNNING
            host.compute += now - self.since
            if host.spans is not None:
                host.span(COMPUTE, self.since, now)
            host.node.step += 1
            self.run(host.gradient)
        elif state == PAYING and self._effect is not RETURN:
            if self.main and self.host.backward is None:
                host, now = self.host, self._clock._now
                host.update += now - self.since
                if host.spans is not None:
                    host.span(UPDATE, self.since, now)
            self.state = RUNNING
            self.run(None, self._effect)
        else:
            super().fire()

    def run(self, value: Any, effect: Effect | object | None = None) -> None:
        """Send ``value`` in, or take up ``effect``, and act on effects until one blocks."""
        tensors, send = self._tensors, self.send
        act: Any = effect
        while True:
            if act is None:
                try:
                    act = send(value)
                except StopIteration:
                    act = RETURN
                if tensors.debt:
                    if self._alone:
                        clock = self._clock
                        self._effect, self.state, self.since = act, PAYING, clock._now
                        due = clock._now + tensors.debt
                        heappush(clock._queue, (due, NORMAL, next(clock._eid), self))  # type: ignore[misc]
                        tensors.debt = 0.0
                    else:
                        self._pay(act)
                    return
            kind = type(act)
            if kind is Receive:
                value = self._receive(act)
            elif kind is Send:
                value = self._send(act)
            elif kind is Compute:
                value = self._compute(act)
                if value is FINISHED:
                    send, act = self._throw, None
                    continue
            elif act is RETURN:
                if not self._returned():
                    return
                value = None
            else:
                handler = self.handlers.get(kind)
                if handler is None:
                    raise TypeError(f"node {self.host.id} yielded {act!r}, which is not an effect")
                value = handler(self, act)
            if value is BLOCKED:
                return
            send, act = self.send, None

    def _throw(self, value: Any) -> Effect:
        """Tell the program that its budget is met."""
        return self.generator.throw(Finished())

    def _compute(self, effect: Compute) -> Any:
        """A step in one piece on a device of the worker's own."""
        host = self.host
        if effect.ready or not self._simple or host.pieces is not None:
            return super()._compute(effect)
        driver = self.driver
        if driver.exhausted(host):
            return FINISHED
        clock, step = self._clock, host.node.step
        now = clock._now
        base, factor = driver.draw(host.id, step, now)
        if step > host.base:
            host.close_row(now)
        self.state, self.since = COMPUTING, now
        heappush(clock._queue, (now + base * factor, NORMAL, next(clock._eid), self))  # type: ignore[misc]
        return BLOCKED

    def _send(self, effect: Send) -> Any:
        """Send, if all connections are known, nobody has left and every window has room."""
        host, window, pairs = self.host, effect.window, effect.pairs
        if host.roster.quiet:
            if window is None:
                window = self._window
            if len(pairs) == 1:
                to, message = pairs[0]
                pair = host.pairs.get(to)
                if pair is not None and pair.undelivered < window:
                    tensor = message.tensor
                    message.source = host.id
                    pair.send(message, 0.0 if tensor is None else tensor.nbytes)
                    return None
            elif self._room(pairs, window):
                self._post(pairs)
                return None
        return super()._send(effect)

    def _try_send(self, effect: TrySend) -> bool:
        if self.host.roster.quiet:
            room = self._room(effect.pairs, self._window)
            if room:
                self._post(effect.pairs)
            if room is not None:
                return room
        return super()._try_send(effect)

    def _room(self, pairs: tuple[tuple[int, Message], ...], window: float) -> bool | None:
        """Whether every window has room; ``None`` where a connection is yet to be made."""
        known = self.host.pairs
        for to, _ in pairs:
            pair = known.get(to)
            if pair is None:
                return None
            if pair.undelivered >= window:
                return False if len(pairs) == 1 else None
        return True

    def _post(self, pairs: tuple[tuple[int, Message], ...]) -> None:
        known, source = self.host.pairs, self.host.id
        for to, message in pairs:
            tensor = message.tensor
            message.source = source
            known[to].send(message, 0.0 if tensor is None else tensor.nbytes)

    def _receive(self, effect: Receive) -> Any:
        """The first message of a tag, or wait for one."""
        host = self.host
        if effect is not self._plain:  # programs wait for the same again and again
            tag = effect.tag
            if effect.source is not None or effect.step is not None or type(tag) is not str or tag in NEWS:
                return super()._receive(effect)
            self._plain = effect
        if host.backward is not None:
            return super()._receive(effect)
        queue = host.inbox.get(effect.tag)
        if queue:
            return self._first(queue)
        if host.told < len(host.roster.log):
            host.learn(None)
        self.state, self.want = RECEIVING, effect
        host.waiting.append(self)
        if self.main:
            if host.incoming:
                host.block(effect)
            else:
                host.mark = self._clock._now
                host.blocked = True
                host.want = effect
                if not host.server:
                    host.matched = 0
        return BLOCKED

    def _poll(self, effect: Poll) -> Any:
        if effect.tag == MODEL and effect.source is None and effect.step is None:
            queue = self.host.inbox.get(MODEL)
            if queue:
                return self._first(queue)
            if self.host.told >= len(self.host.roster.log):
                return None
        return super()._poll(effect)

    def _first(self, queue: deque[Entry]) -> Any:
        """The first message of one tag's queue."""
        sequence, message, pair = queue.popleft()
        host = self.host
        if host.told < len(host.roster.log):
            host.learn(sequence)
        assert pair is not None
        pair.unread -= 1
        if pair.withheld is not None:
            pair.readmit()
        return message


FastPump.handlers = {
    **Pump.handlers,
    Receive: FastPump._receive,
    Send: FastPump._send,
    TrySend: FastPump._try_send,
    Poll: FastPump._poll,
}


def fast_pair(network: Network, source: Host, target: Host) -> Pair:
    """The connection from ``source`` to ``target``, of the kind that suits it."""
    if network.host is None and network.savings is None:
        if network.slots == inf or source.nic is target.nic:
            return _SharedPair(network, source, target)
        if network.slots == 1:
            return _GrantedPair(network, source, target)
    return Pair(network, source, target)


class _GrantedPair(Pair):
    """Messages that ask for a grant and then have both NICs to themselves, if not what lies between."""

    __slots__ = ()

    def send(self, message: Any, nbytes: float) -> Transfer:
        source, network = self.source, self.network
        transfer = self.spare
        if transfer is None:
            transfer = (_Lone if self.rate else _Granted)(self, message, nbytes)
        else:
            self.spare = None
            transfer.message, transfer.nbytes, transfer.queued = message, nbytes, network.clock._now
            transfer.phase, transfer.counted = QUEUED, False
        self.undelivered += 1
        if source.outstanding or source.queue:
            source.line_up(transfer)
        elif self.current is not None or source.lag:
            transfer.ask(True)
        else:
            self.current = transfer
            transfer.counted = True
            source.outstanding = 1
            transfer.phase = ASKING
            now, arrival, nic = transfer.queued, transfer.queued + self.latency, self.target.nic
            network.sequence += 1
            heappush(nic.requests, (arrival, network.sequence, transfer))
            if nic.free_in:
                if arrival <= now:
                    nic.grant()
                elif arrival < nic.wake:
                    nic.wake = arrival
                    clock = network.clock
                    heappush(clock._queue, (arrival, NORMAL, next(clock._eid), nic))  # type: ignore[misc]
        return transfer


class _SharedPair(Pair):
    """Messages that start without asking."""

    __slots__ = ()

    def send(self, message: Any, nbytes: float) -> Transfer:
        network, transfer = self.network, self.spare
        clock = network.clock
        if transfer is None:
            transfer = _Shared(self, message, nbytes)
        else:
            self.spare = None
            transfer.message, transfer.nbytes, transfer.phase = message, nbytes, QUEUED
            transfer.queued = clock._now
        self.undelivered += 1
        if self.current is None:
            self.current = transfer
            lead = self.lead
            if lead > 0 and self.unread < network.inbox:
                transfer.phase = STARTING
                due = clock._now + lead
                heappush(clock._queue, (due, NORMAL, next(clock._eid), transfer))  # type: ignore[misc]
            else:
                self.open()
        else:
            self.wait(transfer)
        return transfer


class _Known(Transfer):
    """A message between two hosts: their booking and the hand-over are written out."""

    __slots__ = ()

    def _depart(self, now: float) -> None:
        """Its bytes begin to move: book both ends' time until now."""
        pair: Any = self.pair
        source: Host = pair.source
        target: Host = pair.target
        self.began = now
        if source.blocked and not source.out and now > source.mark:
            source.book(now)
        source.out += 1
        if target.server:
            if target.blocked and not target.matched and now > target.mark:
                target.book(now)
            target.matched += 1
            return
        target.incoming[self] = None
        want = target.want
        if target.blocked and want is not None:
            message = self.message
            plain = want.tag == message.tag and want.source is None and want.step is None
            if plain or matches(want, message):
                if not target.matched and now > target.mark:
                    target.book(now)
                target.matched += 1

    def _arrive(self, pair: Any, now: float) -> None:
        """Its last byte has moved: book both ends' time until now, and count."""
        source: Host = pair.source
        target: Host = pair.target
        self.phase = OVER
        if source.blocked and source.out == 1 and now > source.mark:
            source.book(now)
        source.out -= 1
        if target.server:
            if target.blocked and target.matched == 1 and now > target.mark:
                target.book(now)
            target.matched -= 1
        else:
            del target.incoming[self]
            want = target.want
            if target.blocked and want is not None:
                message = self.message
                plain = want.tag == message.tag and want.source is None and want.step is None
                if plain or matches(want, message):
                    if target.matched == 1 and now > target.mark:
                        target.book(now)
                    target.matched -= 1
        pair.undelivered -= 1
        pair.messages += 1
        pair.bytes += self.nbytes

    def _deliver(self, pair: Any, target: Host) -> None:
        """Give the message to a program that waits for just its tag, or to the inbox."""
        waiting = target.waiting
        if len(waiting) == 1:
            want = waiting[0].want
            if want.tag == self.message.tag and want.source is None and want.step is None:
                waiting.pop().wake(self.message)
                return
        pair.unread += 1
        target.delivered(self)

    def _leave(self, pair: Any) -> None:
        """Delivered by a grant: whose turn is it?"""
        network = pair.network
        source: Host = pair.source
        target: Host = pair.target
        out, into = source.nic, target.nic
        out.free_out += 1
        into.free_in += 1
        if self.counted:
            source.outstanding -= 1
        self._deliver(pair, target)
        pair.current = None
        if pair.behind:
            pair.follow()
        if out.blocked:
            out.unblock()
        if source.queue:
            network.advance(source)
        if into.requests:
            into.grant()
        if source.watching:
            source.released(self)
        self.message = None
        pair.spare = self


class _Lone(_Known):
    __slots__ = ()

    def move(self, now: float) -> None:
        pair = self.pair
        if pair.overhead and self.phase != STARTING:
            self.phase = STARTING
            pair.network.clock.at(now + pair.overhead, self)
            return
        self._depart(now)
        self.phase = TIMED
        clock = pair.network.clock
        heappush(clock._queue, (now + self.nbytes / pair.rate, NORMAL, next(clock._eid), self))  # type: ignore[misc]

    def flow(self) -> None:
        self.move(self.pair.network.clock._now)

    def fire(self) -> None:
        if self.phase != TIMED:
            super().fire()
            return
        pair: Any = self.pair
        network = pair.network
        self._arrive(pair, network.clock._now)
        if network.observer is not None:
            network.observer(self)
        self._leave(pair)


class _Granted(_Known):
    __slots__ = ()

    def move(self, now: float) -> None:
        network = self.pair.network
        if self.pair.overhead:
            self.phase = STARTING
            network.clock.at(now + self.pair.overhead, self)
            return
        self._depart(now)
        self.phase = FLOWING
        network.fluid.start(self, self.nbytes)

    def arrived(self) -> None:
        pair: Any = self.pair
        network = pair.network
        self._arrive(pair, network.clock._now)
        if network.observer is not None:
            network.observer(self)
        self._leave(pair)


class _Shared(_Known):
    __slots__ = ()

    def flow(self) -> None:
        pair = self.pair
        network = pair.network
        self._depart(network.clock._now)
        self.phase = FLOWING
        network.fluid.start(self, self.nbytes)

    def fire(self) -> None:
        if self.phase == STARTING:
            network = self.pair.network
            self._depart(network.clock._now)
            self.phase = FLOWING
            network.fluid.start(self, self.nbytes)

    def arrived(self) -> None:
        pair: Any = self.pair
        network = pair.network
        self._arrive(pair, network.clock._now)
        if network.observer is not None:
            network.observer(self)
        self._deliver(pair, pair.target)
        pair.current = None
        if pair.behind:
            pair.follow()
        if pair.source.watching:
            pair.source.released(self)
        self.message = None
        pair.spare = self
