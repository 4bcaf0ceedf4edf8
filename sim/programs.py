"""Pumps: what drives one node program from effect to effect.

Rules this module obeys:

* A program is a plain generator: results are sent in, ``Finished`` is thrown in. Each kind of effect
  has one handler, which returns the result, ``BLOCKED`` or ``FINISHED``.
* Tensor work since the last effect is a debt; it is paid in time before the next effect acts. So is what a
  program spends on messages, on a host where that costs anything.
* A pump is its own alarm: it sleeps for a step or a debt without any further object.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import TYPE_CHECKING, Any, ClassVar

from mypy_extensions import mypyc_attr

from core.collectives import all_reduce
from core.effects import AllReduce, Compute, Effect, Flush, Now, Poll, Produced, Receive, Send, TrySend
from core.node import JOINED, LEFT, Finished, Program
from core.record import PARTS
from core.tensors import Tensors
from sim.alarm import NORMAL, Alarm
from sim.backward import Backward
from sim.host import Host
from sim.network import Pair

if TYPE_CHECKING:
    from sim.driver import Driver

__all__ = ["Metered", "Pump"]

COMPUTE, UPDATE = PARTS.index("compute"), PARTS.index("update")

RUNNING, COMPUTING, PAYING, RECEIVING, SENDING, FLUSHING, REDUCING, ENDED, PRODUCING = range(9)

BLOCKED, FINISHED, RETURN = object(), object(), object()

NEWS = frozenset({LEFT, JOINED})


@mypyc_attr(allow_interpreted_subclasses=True)
class Metered(Tensors):
    """Tensor operations that run up a debt: seconds per call plus bytes by rate."""

    __slots__ = ("_costs", "debt")

    def __init__(self, rates: dict[str, float], seconds: dict[str, float]) -> None:
        self._costs = {
            name: (seconds.get(name, 0.0), 1 / rates[name] if name in rates else 0.0)
            for name in {**rates, **seconds}
        }
        self.debt = 0.0

    def twin(self) -> Metered:
        """One more of the same costs, which are held once."""
        made = Metered.__new__(Metered)
        made._costs, made.debt = self._costs, 0.0
        return made

    def charge(self, operation: str, nbytes: float) -> None:
        cost = self._costs.get(operation)
        if cost is not None:
            self.debt += cost[0] + nbytes * cost[1]

    def cost(self, operation: str, nbytes: float) -> float:
        """Seconds of one operation on so many bytes."""
        call, byte = self._costs.get(operation, (0.0, 0.0))
        return call + nbytes * byte


@mypyc_attr(allow_interpreted_subclasses=True)
class Pump(Alarm):
    """One program of one node."""

    __slots__ = (
        "_effect",
        "_full",
        "_stack",
        "driver",
        "generator",
        "host",
        "main",
        "send",
        "since",
        "state",
        "want",
    )

    handlers: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {}
    want: Any

    def __init__(self, driver: Driver, host: Host, generator: Program, main: bool) -> None:
        self.driver, self.host, self.main = driver, host, main
        self.generator, self.send = generator, generator.send
        self.state = RUNNING
        self._stack: list[Program] = []
        self._full: Pair | None = None
        self._effect: Any = None

    def fire(self) -> None:
        """A step or a debt is over."""
        state = self.state
        if state == COMPUTING:
            self._computed()
        elif state == PAYING:
            if self.main and self.host.backward is None:
                host, now = self.host, self.driver.clock._now
                host.update += now - self.since
                if host.spans is not None:
                    host.span(UPDATE, self.since, now)
            self.state = RUNNING
            effect = self._effect
            if effect is RETURN:
                self._returned()
                return
            value = self.handlers[type(effect)](self, effect)
            if value is not BLOCKED:
                self.run(value)

    def run(self, value: Any) -> None:
        """Send ``value`` in, and act on effects until one blocks."""
        tensors, send = self.host.tensors, self.send
        effect: Any
        while True:
            try:
                effect = self.generator.throw(Finished()) if value is FINISHED else send(value)
            except StopIteration:
                effect = RETURN
            if tensors.debt:
                self._pay(effect)
                return
            if effect is RETURN:
                if not self._returned():
                    return
                send, value = self.send, None
                continue
            try:
                handler = self.handlers[type(effect)]
            except KeyError:
                raise TypeError(f"node {self.host.id} yielded {effect!r}, which is not an effect") from None
            value = handler(self, effect)
            if value is BLOCKED:
                return
            send = self.send

    def _pay(self, effect: Effect | object) -> None:
        tensors, clock = self.host.tensors, self.driver.clock
        self._effect, self.state, self.since = effect, PAYING, clock._now
        processor = self.driver.processor
        if processor is None:
            due = clock._now + tensors.debt
            heappush(clock._queue, (due, NORMAL, next(clock._eid), self))  # type: ignore[misc]
        else:
            processor.run(self, tensors.debt, 1.0, slept=True)
        tensors.debt = 0.0

    def _returned(self) -> bool:
        """A generator is exhausted; says whether an outer one goes on at once."""
        if self._stack:
            self.host.lag = 0.0
            self.generator = self._stack.pop()
            self.send = self.generator.send
            if self.state == RUNNING and self._effect is RETURN:
                self._effect = None
                self.run(None)
                return False
            return True
        self.state = ENDED
        self.driver.ended(self)
        return False

    # Steps

    @property
    def idled(self) -> float:
        """Seconds for which its node has been stopped so far."""
        return 0.0

    @property
    def awaited(self) -> int | None:
        """The one node whose message it waits for, or will when it has paid its debt; None if none."""
        effect = self._effect if self.state == PAYING else self.want if self.state == RECEIVING else None
        return effect.source if isinstance(effect, Receive) else None

    def held(self, alarm: Alarm) -> bool:
        """Whether ``alarm``, of a step, goes off too early because the node was stopped meanwhile."""
        return False

    def _compute(self, effect: Compute) -> Any:
        driver, host = self.driver, self.host
        node, now = host.node, driver.clock._now
        rank = host.id
        if driver.exhausted(host):
            return FINISHED
        base, factor = driver.draw(rank, node.step, now)
        if driver.cold:
            base += self._cold(factor)
        if driver.copying and len(host.programs) > 1:
            base += driver.copying / factor
        if node.step > host.base:
            host.close_row(now)
        if driver.numerics is not None:
            host.gradient = driver.numerics.begin(host)
        self.state, self.since = COMPUTING, now
        if driver.paced_gradient and driver.processor is not None:
            driver.processor.run(driver.passes[host], driver.paced_gradient, 1.0)
        if host.pieces is not None or effect.ready:
            return self._in_pieces(effect, base, factor)
        if host.device is None:
            clock = driver.clock
            heappush(clock._queue, (now + base * factor, NORMAL, next(clock._eid), self))  # type: ignore[misc]
        else:
            host.device.run(self, base, factor)
        return BLOCKED

    def _cold(self, factor: float) -> float:
        """Seconds that a step takes longer after the pause since the last one: blocked, or slowed down."""
        host, driver = self.host, self.driver
        pause = host.receive + host.wait + host.send
        if factor > 1:
            pause += host.compute * (1 - 1 / factor)
        return driver.cold * min(pause / driver.pause if driver.pause else float(pause > 0), 1.0)

    def _in_pieces(self, effect: Compute, base: float, factor: float) -> object:
        """Begin a step whose gradient comes in pieces, and wait for the first."""
        host, last = self.host, self.host.pieces
        if last is not None and last.taken < len(last.ready):
            missing = len(last.ready) - last.taken
            raise TypeError(f"node {host.id} yielded Compute with {missing} pieces not asked for (Produced)")
        self.state = PRODUCING
        host.pieces = host.backward = Backward(self, effect.ready or (1.0,), base, factor)
        return BLOCKED

    def _produced(self, effect: Produced) -> Any:
        pieces = self.host.pieces
        if pieces is None or pieces.taken >= len(pieces.ready):
            raise TypeError(f"node {self.host.id} yielded {effect!r}, but no piece of a gradient is to come")
        pieces.taken += 1
        if not pieces.waited_for:
            return None
        self.state = PRODUCING
        return BLOCKED

    def produced(self, pieces: Backward) -> None:
        """One more piece is there: go on if that was waited for."""
        if self.state == PRODUCING and not pieces.waited_for:
            self.state = RUNNING
            self.run(pieces.gradient if pieces.taken == 1 else None)

    def uncovered(self) -> None:
        """The backward pass is over: from now on the program's time is what it is blocked in."""
        host, state = self.host, self.state
        if state == RECEIVING:
            host.block(self.want)
        elif state in (SENDING, FLUSHING):
            host.block(None)
        else:
            self.since = host.mark = host.clock._now

    def _computed(self) -> None:
        host = self.host
        self.state = RUNNING
        now = self.driver.clock._now
        host.compute += now - self.since
        if host.spans is not None:
            host.span(COMPUTE, self.since, now)
        numerics = self.driver.numerics
        if numerics is None:
            host.node.step += 1
            self.run(host.gradient)
            return
        gradient = numerics.finish(host.gradient, now)
        host.node.step += 1
        numerics.stepped(now)
        self.run(gradient)

    # Messages

    def _receive(self, effect: Receive) -> Any:
        host, tag = self.host, effect.tag
        message = host.take(effect)
        if message is not None:
            self._spend(1)
            return message
        listens = effect.source is not None or not NEWS.isdisjoint((tag,) if type(tag) is str else tag)
        self.state, self.want = RECEIVING, effect
        host.waiting.append(self)
        if listens:
            host.roster.listening[self] = None
        if self.main:
            host.block(effect)
        return BLOCKED

    def _poll(self, effect: Poll) -> Any:
        message = self.host.take(effect)
        if message is not None:
            self._spend(1)
        return message

    def _spend(self, messages: int) -> None:
        """The program has sent or taken so many: its own work, beside what it does with tensors."""
        cost = self.driver.message
        if cost:
            self.host.tensors.debt += messages * cost

    def wake(self, message: Any) -> None:
        """What the program waited for is here."""
        host = self.host
        self.state = RUNNING
        roster = host.roster
        if roster.listening:
            roster.listening.pop(self, None)
        if host.told < len(roster.log):
            host.learn(None)
        if self.main and host.blocked:
            now = host.clock._now
            if now > host.mark:
                host.book(now)
            host.blocked = False
        self._spend(1)
        self.run(message)

    def hear(self, news: Any) -> None:
        """Node ``news.rank`` has left or joined while this program waited."""
        host, want = self.host, self.want
        tags = (want.tag,) if type(want.tag) is str else want.tag
        wanted = news.tag in tags and want.source is None
        if news.rank == host.id or not (wanted or (want.source == news.rank and news.tag == LEFT)):
            return
        if wanted and news.tag == LEFT:
            host.heard = len(host.roster.log)
        elif wanted:
            host.greeted = len(host.roster.log)
        host.waiting.remove(self)
        self.wake(news)

    def _send(self, effect: Send) -> Any:
        driver, host = self.driver, self.host
        window = driver.window if effect.window is None else effect.window
        pairs = driver.pairs(host, effect.pairs)
        for pair, _ in pairs:
            if pair.undelivered >= window:
                return self._stall(SENDING, effect, pair)
        if len(pairs) < len(effect.pairs):
            driver.dropped(host, effect.pairs, pairs)
        for pair, message in pairs:
            tensor = message.tensor
            pair.send(message, 0.0 if tensor is None else tensor.nbytes)
        self._spend(len(pairs))
        return None

    def _try_send(self, effect: TrySend) -> bool:
        driver, host = self.driver, self.host
        window = driver.window
        pairs = driver.pairs(host, effect.pairs)
        for pair, _ in pairs:
            if pair.undelivered >= window:
                return False
        if len(pairs) < len(effect.pairs):
            driver.dropped(host, effect.pairs, pairs)
        for pair, message in pairs:
            tensor = message.tensor
            pair.send(message, 0.0 if tensor is None else tensor.nbytes)
        self._spend(len(pairs))
        return True

    def _flush(self, effect: Flush) -> Any:
        known = self.host.pairs
        for to in effect.to:
            pair = known.get(to)
            if pair is not None and pair.undelivered:
                return self._stall(FLUSHING, effect, pair)
        return None

    def _stall(self, state: int, effect: Send | Flush, pair: Pair) -> object:
        self.state, self._effect, self._full = state, effect, pair
        self.host.senders.append(self)
        self.host.watching = True
        if self.main:
            self.host.block(None)
        return BLOCKED

    def retry(self, pair: Pair) -> None:
        """A message of ``pair`` is out of the way."""
        if pair is not self._full:
            return
        effect, host = self._effect, self.host
        if self.state == FLUSHING and pair.undelivered:
            return
        host.senders.remove(self)
        host.watching = bool(host.senders) or host.leaving
        if self.main:
            host.unblock()
        self.state = RUNNING
        value = self.handlers[type(effect)](self, effect)
        if value is not BLOCKED:
            self.run(value)

    def _all_reduce(self, effect: AllReduce) -> Any:
        driver = self.driver
        if driver.collective is not None:
            self.state = REDUCING
            driver.collective.join(self, effect.tensor)
            return BLOCKED
        self.host.lag = driver.ring_lag
        self._stack.append(self.generator)
        self.generator = all_reduce(self.host.node, effect.tensor)
        self.send = self.generator.send
        return None

    def _now(self, effect: Now) -> float:
        return self.driver.clock._now

    # The end

    def depart_when_clear(self) -> None:
        """Once the ended node's last message is delivered, tell everybody that it has left."""
        host = self.host
        if not any(pair.undelivered for pair in host.pairs.values()):
            host.leaving = host.watching = False
            self.driver.clock.at(self.driver.clock._now, Departure(self.driver, host))

    def stop(self) -> None:
        """Close the program, whatever it is at."""
        self.state = ENDED
        for generator in (self.generator, *reversed(self._stack)):
            generator.close()

    def describe(self) -> str:
        """Who waits for what, for ``Deadlock``."""
        host = self.host
        first = host.node.workers  # servers are counted from 0, as in faults and timelines
        who = f"server {host.id - first} (node {host.id})" if host.server else f"worker {host.id}"
        who += "" if self.main else " (companion)"
        if self.state == RECEIVING:
            want = self.want
            tags = want.tag if type(want.tag) is str else "/".join(want.tag)
            source = "" if want.source is None else f" from node {want.source}"
            step = "" if want.step is None else f", step {want.step}"
            return f"{who} waits to receive {tags}{source}{step}"
        if self.state == REDUCING:
            return f"{who} waits in an all-reduce for the other workers"
        full = self._full
        assert full is not None
        verb = "send to" if self.state == SENDING else "flush what it sent to"
        why = f"{full.undelivered} undelivered, {full.unread} unread there"
        return f"{who} waits to {verb} node {full.target.id} ({why})"


class Departure(Alarm):
    """A node leaves, at its own place in the order of events."""

    __slots__ = ("_driver", "_host")

    def __init__(self, driver: Driver, host: Host) -> None:
        self._driver, self._host = driver, host

    def fire(self) -> None:
        self._driver.depart(self._host)


Pump.handlers = {
    Compute: Pump._compute,
    Produced: Pump._produced,
    Receive: Pump._receive,
    Send: Pump._send,
    TrySend: Pump._try_send,
    Poll: Pump._poll,
    Flush: Pump._flush,
    AllReduce: Pump._all_reduce,
    Now: Pump._now,
}
