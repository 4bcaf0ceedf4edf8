"""Two endpoints take up a broken conversation: one is the next life of a server that kept a journal.

Rules this module obeys:

* While they are parted nothing moves between them; what the program sends meanwhile waits in the queue.
* Each side says (``HELLO``) which sequence it expects next. All before it has been received for good, and so
  counts as confirmed; all from there on is asked for again, from the first byte. So nothing is lost, and
  nothing comes twice.
* What was half received is dropped; nobody confirmed it.

The functions hold the endpoint's lock; they are its own, kept apart because only servers that come back
need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from real import wire
from real.errors import Replayed, WireError
from real.wire import Header

if TYPE_CHECKING:
    from real.endpoint import Endpoint

__all__ = ["drop_incoming", "hello", "meet", "part"]

ANSWER = 1
"""``step`` of a ``HELLO`` that wants one back."""


def part(endpoint: Endpoint, node: int) -> None:
    """``node`` is down, or this one was: nothing moves between them until they have met."""
    with endpoint.changed:
        now = endpoint.clock()
        endpoint.parted.add(node)
        broken = [endpoint._moving.pop(key) for key in sorted(endpoint._moving) if key[0] == node]
        for going in broken:
            endpoint._stop(going.motion, now)
            going.motion = None
            going.pieces = []
        again = [going for going in endpoint._queue if going.to == node]
        for going in (*broken, *again):
            going.asked = going.aside = False
        if broken:
            others = [going for going in endpoint._queue if going.to != node]
            endpoint._queue = [*broken, *again, *others]
            moving = (going.motion.end for going in endpoint._moving.values() if going.motion is not None)
            endpoint._out_free = min(endpoint._out_free, max(moving, default=now))
        drop_incoming(endpoint, node, now)
        endpoint._ask(now)
        endpoint._grant(now)
    endpoint.kick()


def drop_incoming(endpoint: Endpoint, node: int, now: float) -> None:
    """Forget what ``node`` has asked for and half sent."""
    endpoint._requests.pop(node, None)
    endpoint._held.pop(node, None)
    coming = endpoint._incoming.pop(node, None)
    if coming is not None:
        endpoint._stop(coming.motion, now)
        endpoint._in_free = now


def meet(endpoint: Endpoint, node: int, life: int) -> None:
    """That life of ``node`` is there; if it was only parted, it goes on where the one before ended.

    Who has said goodbye says it again: who has yet to be told of this node may be told that it is there.
    """
    if node not in endpoint.parted:
        endpoint.depart(node)
        with endpoint.changed:
            endpoint.lives.of[node] = life
            endpoint.gone.discard(node)
            endpoint.undelivered[node] = endpoint._sequence[node] = endpoint._expected[node] = 0
            _part_with(endpoint, node)
        return
    part(endpoint, node)
    with endpoint.changed:
        endpoint.lives.of[node] = endpoint.lives.known[node] = life
        endpoint._outbox = [frame for frame in endpoint._outbox if frame[0] != node]
        endpoint._frame(node, _hello(endpoint, node, ANSWER))


def hello(endpoint: Endpoint, header: Header) -> None:
    """The other one's ``HELLO``: what it has is confirmed, the rest goes out again.

    Raises ``WireError`` where it claims to have what was never sent, or not to have what it confirmed, and
    ``Replayed`` where it wants to be answered again: answers wait without bound while it does not read them.
    """
    node, expected, now = header.source, header.sequence, endpoint.clock()
    sent = endpoint._sequence[node]
    if expected > sent:
        raise WireError(f"node {node} has had {expected} messages; only {sent} are known: the rest is lost")
    if expected < sent - endpoint.undelivered[node]:
        raise WireError(f"node {node} has lost messages that it confirmed: {expected} of {sent} are there")
    if header.step == ANSWER:
        if node not in endpoint.parted and endpoint.greeted.get(node) == header.incarnation:
            raise Replayed(f"node {node} says again that it is back")
        endpoint.greeted[node] = header.incarnation
        endpoint._frame(node, _hello(endpoint, node, 0))
        _part_with(endpoint, node)
    if node not in endpoint.parted:
        return
    endpoint.parted.discard(node)
    for going in [g for g in endpoint._queue if g.to == node and g.sequence < expected]:
        endpoint._queue.remove(going)
        endpoint._conclude(going)
    for going in endpoint._queue:
        if going.to == node:
            going.ready = now + endpoint.links.path_latency(endpoint.me, node)
    endpoint.confirmed = now
    endpoint._ask(now)
    endpoint.changed.notify_all()


def _hello(endpoint: Endpoint, node: int, step: int) -> Header:
    return Header(wire.HELLO, endpoint.me, endpoint._expected[node], step=step, time=endpoint.clock())


def _part_with(endpoint: Endpoint, node: int) -> None:
    """Say goodbye to ``node``, if it has been said to the others."""
    if endpoint.goodbye is not None:
        step, number = endpoint.goodbye
        endpoint._frame(node, Header(wire.BYE, endpoint.me, step=step, number=number, time=endpoint.clock()))
