"""One node's side of the transport protocol: who may send what when. No sockets, no sleeping.

Rules this module obeys:

* Sans I/O: frames come in by ``on_frame``, frames to send go out by ``tick``; time is injected, so
  the same code runs over sockets (``real.transport``) and in memory (``real.memory``).
* Outgoing messages leave in order, at most ``slots`` at once; messages of one (sender, receiver)
  pair move one at a time. The head asks for a grant while its predecessor still moves.
* The receiver grants in order of request, as soon as a slot is free, and only while fewer than
  ``inbox`` messages of that sender lie unread; a request withheld for a full inbox is put aside at
  the sender (``HOLD``, later ``RESUME``) so that messages behind it, to other receivers, pass.
* ``window`` bounds the undelivered messages per (sender, receiver); all of one submission are
  taken or none.
* Nothing is allocated before a request was checked, and at most one buffer per sender.
* A node that comes back is another life of it (``lives``): sequence numbers begin anew, and frames of any
  other life are dropped and counted. A program's messages go to the life that it knows of, or nowhere.
* Any thread may call any method: one lock, held briefly and never while payload is copied.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from core.node import Joined, Left, Message
from real import reunion, wire
from real.errors import WireError, misfit
from real.lives import Lives
from real.mailbox import GONE, Mailbox, Motion, Traffic
from real.pacing import CREDIT, Links
from real.transfers import Incoming, Outgoing
from real.wire import Agreed, Header

__all__ = ["Allocate", "Endpoint", "Expose", "Frame"]

Frame = tuple[int, bytes, memoryview | None]
"""(receiver, packed header, payload)."""

Allocate = Callable[[int, str], tuple[Any, memoryview]]
Expose = Callable[[Any], tuple[str, memoryview]]


class Endpoint:
    """Node ``me``'s queues, grants and mailbox.

    slots   messages at once through a NIC direction (``admission``)
    window  undelivered messages per receiver; inbox: unread ones per sender (may be infinite)
    transfers  (start, end) of every delivered outgoing message, if set to a list
    parted  nodes that are down or have just come back: nothing moves between (``real.reunion``); greeted:
            the lives of others whose ``HELLO`` was answered
    moved   frames that went out or came in so far: where it stands still, nothing moves
    life    which life of the node this is; lives: of the others, those whose frames are taken
    beside  tag of messages that no program sees: who has sent one is in ``asking``
    told    called with news when the programs know of it; acknowledged: with messages that are confirmed
    kick    called when another thread than the transport's has made frames or deadlines
    """

    def __init__(
        self, me: int, agreed: Agreed, links: Links, *, allocate: Allocate, expose: Expose,
        clock: Callable[[], float], slots: int = 1, window: float = 1, inbox: float = 2, life: int = 0,
    ) -> None:  # fmt: skip
        self.me, self.agreed, self.links, self.life = me, agreed, links, life
        self.slots, self.window, self.inbox = slots, window, inbox
        self._allocate, self._expose, self.clock = allocate, expose, clock
        self.kick: Callable[[], None] = lambda: None
        self.changed = threading.Condition(threading.RLock())
        self.mailbox = Mailbox()
        self.moving_in, self.moving_out = Traffic(), Traffic()
        self.undelivered: Counter[int] = Counter()
        self.lives = Lives()
        self.gone = self.lives.gone
        self.told: Callable[[Left | Joined], None] = lambda _: None
        self.acknowledged: Callable[[Message], None] = lambda _: None
        self.beside, self.asking, self.parted = "", set[int](), set[int]()
        self.greeted: dict[int, int] = {}
        self.goodbye: tuple[int, float] | None = None
        self._discarding = False
        self.confirmed = 0.0
        self.transfers: list[tuple[float, float]] | None = None
        self.ended: dict[int, int] = {}
        self.sent, self.received, self.moved = Counter[str](), Counter[str](), 0
        self._queue: list[Outgoing] = []
        self._moving: dict[tuple[int, int], Outgoing] = {}
        self._sequence: Counter[int] = Counter()
        self._out_free = self._in_free = 0.0
        self._requests: dict[int, tuple[float, int, Header]] = {}
        self._held: dict[int, Header] = {}
        self._incoming: dict[int, Incoming] = {}
        self._expected: Counter[int] = Counter()
        self._arrivals = 0
        self._outbox: list[Frame] = []
        self._horizon = links.horizon(agreed.max_bytes)

    # ---- the program's side -------------------------------------------------------------------

    def submit(
        self, pairs: Sequence[tuple[int, Message]], window: float | None = None, lag: float = 0.0,
        *, unknown: bool = False,
    ) -> bool:  # fmt: skip
        """Take all messages, or none if any window is full; those to nodes that left are dropped.

        Raises ``ValueError`` or ``TypeError``, and takes none, where the receiver would refuse one.
        ``lag``: seconds by which the program is late through the host's fault; paced links make it up.
        ``unknown``: also to a life that the programs do not know of yet.
        """
        limit = self.window if window is None else window
        with self.changed:
            if any(self.undelivered[to] >= limit for to, _ in pairs if self.lives.there(to)):
                return False
        exposed = [self._expose(message.tensor) for _, message in pairs]
        for (to, message), (dtype, payload) in zip(pairs, exposed, strict=True):
            self._check(to, message, dtype, len(payload))
        with self.changed:
            now = self.clock()
            for (to, message), (dtype, payload) in zip(pairs, exposed, strict=True):
                if to in self.gone or not (unknown or self.lives.there(to)):
                    continue
                self.undelivered[to] += 1
                ready = now - lag + self.links.path_latency(self.me, to)
                self._queue.append(Outgoing(to, message, dtype, payload, self._sequence[to], ready))
                self._sequence[to] += 1
            self._ask(now)
        self.kick()
        return True

    def _check(self, to: int, message: Message, dtype: str, nbytes: int) -> None:
        """Hold a message against what its receiver will hold it against."""
        if not 0 <= to < self.agreed.nodes or to == self.me:
            raise ValueError(
                f"node {self.me} sends {message.tag!r} to node {to}; expected another one of nodes "
                f"0 to {self.agreed.nodes - 1}"
            )
        head = Header(
            wire.REQ, self.me, 0, message.tag, dtype, 0, message.step, message.count, message.versions,
            message.number, nbytes,
        )  # fmt: skip
        try:
            wire.unpack(wire.pack(head, self.agreed.token), self.agreed, 0)
        except WireError as error:
            raise ValueError(f"node {self.me} cannot send {message.tag!r} to node {to}: {error}") from None

    def delivered(self, receivers: Iterable[int]) -> bool:
        """Whether everything sent to ``receivers`` is delivered (or they have left)."""
        with self.changed:
            return all(self.undelivered[to] == 0 for to in receivers)

    def take(
        self, tags: tuple[str, ...], source: int | None, step: int | None
    ) -> tuple[Message | Left | Joined | None, float]:
        """The first unread message (or news) that matches, or None; and when it was due (monotonic)."""
        with self.changed:
            item, due = self.mailbox.take(tags, source, step)
            for news, life in self.mailbox.learned:
                self.lives.learn(news.rank, life)
                self.told(news)
            self.mailbox.learned.clear()
            if type(item) is Left and item.rank in self.mailbox.left:
                self.lives.known[item.rank] = GONE
            if type(item) is Message and item.source in self._held and self._room(item.source):
                self._reply(self._held.pop(item.source), wire.RESUME, self.clock())
                self.kick()
            return item, due

    def _room(self, source: int) -> bool:
        return self.mailbox.unread[source] < self.inbox

    def forget(self, before: float) -> None:
        """Drop what is known of transfers that ended by ``before``: nobody will ask any more."""
        with self.changed:
            self.moving_in.forget(before)
            self.moving_out.forget(before)

    def timed(self) -> bool:
        """Whether something is going to move by itself at an instant that is still to come."""
        return self.clock() < self.deadline() < math.inf

    def room(self, pairs: Sequence[tuple[int, Message]]) -> bool:
        """Whether ``submit`` would take these under the scenario's window."""
        with self.changed:
            return all(self.undelivered[to] < self.window or not self.lives.there(to) for to, _ in pairs)

    def discard(self) -> None:
        """Nobody reads here any more: what is unread, and what still comes, must not hold up others."""
        with self.changed:
            self._discarding = True
            self.mailbox.clear()
            for head in self._held.values():
                self._reply(head, wire.RESUME, self.clock())
            self._held.clear()
        self.kick()

    def say(self, kind: int, receivers: Iterable[int], *, step: int = 0, number: float = 0.0) -> None:
        """Send a frame without payload outside all queues (``BYE``, ``PING``)."""
        with self.changed:
            self.goodbye = (step, number) if kind == wire.BYE else self.goodbye
            for to in receivers:
                self._frame(to, Header(kind, self.me, step=step, number=number, time=self.clock()))
        self.kick()

    def notify(self) -> None:
        """Wake whoever waits on ``changed``: something happened elsewhere."""
        with self.changed:
            self.changed.notify_all()

    # ---- the transport's side -----------------------------------------------------------------

    def tick(self) -> list[Frame]:
        """Do what is due; returns the frames to send now, in order."""
        with self.changed:
            now = self.clock()
            for source, coming in list(self._incoming.items()):
                if coming.complete and coming.motion.end <= now:
                    self._deliver(source, coming, now)
            self._grant(now)
            for going in list(self._moving.values()):
                self._release(going, now)
            self._ask(now)
            frames, self._outbox = self._outbox, []
            self.moved += len(frames)
            return frames

    def deadline(self) -> float:
        """When ``tick`` has something to do next, if nothing arrives before; infinite if nothing."""
        with self.changed:
            times = [going.pieces[0][0] for going in self._moving.values() if going.pieces]
            times += [coming.motion.end for coming in self._incoming.values() if coming.complete]
            if len(self._incoming) < self.slots:
                times += [at for source, (at, _, _) in self._requests.items() if source not in self._incoming]
            return 0.0 if self._outbox else min(times, default=float("inf"))

    def on_frame(self, header: Header, payload: memoryview | None = None) -> None:
        """Handle one checked frame. Raises ``WireError`` if it does not fit what went before."""
        source = header.source
        self.moved += 1
        if source in self.parted and header.kind in wire.MOVING:
            self.lives.former += 1  # on its way when it died; what it said is asked for anew
            return
        if header.kind == wire.DATA:
            self._data(header, payload)
            return
        with self.changed:
            now = self.clock()
            if not self.lives.takes(header):
                return
            if header.time > now + self._horizon:
                raise WireError(f"a time {header.time - now:.0f} s ahead")
            if header.kind == wire.REQ:
                self._request(header, now)
            elif header.kind == wire.PING:
                self._frame(source, Header(wire.PONG, self.me))
            elif header.kind == wire.PONG:
                self.received["pong"] += 1
                self.changed.notify_all()
            elif header.kind == wire.BYE:
                self.ended[source] = header.step
                self.lives.ended(header)
                self.mailbox.depart(source, now)
                self.changed.notify_all()
            elif header.kind == wire.HELLO:
                reunion.hello(self, header)
            else:
                self._answer(header, now)

    def depart(self, rank: int) -> None:
        """``rank`` has died: forget what moves to and from it, tell the program."""
        with self.changed:
            if rank in self.gone:
                return
            now = self.clock()
            self.gone.add(rank)
            self.parted.discard(rank)
            self.mailbox.depart(rank, now)
            self._queue = [going for going in self._queue if going.to != rank]
            self._outbox = [frame for frame in self._outbox if frame[0] != rank]
            for key in [key for key in self._moving if key[0] == rank]:
                self._stop(self._moving.pop(key).motion, now)
            self.undelivered[rank] = 0
            self.asking.discard(rank)
            reunion.drop_incoming(self, rank, now)
            self._ask(now)
            self._grant(now)
            self.changed.notify_all()
        self.kick()

    def introduce(self, lives: Mapping[int, int], live: Collection[int]) -> None:
        """Before anything moves: which nodes can be reached, in which life, and which of them are there."""
        with self.changed:
            others = set(range(self.agreed.nodes)) - {self.me}
            self.lives.introduce(others, lives, live)
            self.mailbox.left |= others.difference(live)

    def meet(self, rank: int, life: int) -> None:
        """From now on frames of that life of ``rank`` are taken, and none of any other."""
        reunion.meet(self, rank, life)

    def welcome(self, rank: int, life: int) -> None:
        """Let the programs know that ``rank`` is there, unless that life has ended by now."""
        with self.changed:
            if self.lives.goes_on(rank, life):
                self.mailbox.join(rank, life, self.clock())
                self.changed.notify_all()

    # ---- sending ------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        """Send requests for the messages at the head, as many as there are free slots."""
        busy = sum(1 for going in self._moving.values() if going.pieces and not self.links.paced)
        busy += sum(1 for going in self._queue if going.asked)
        blocked = self.parted | {going.to for going in self._queue if going.asked}
        blocked |= {to for (to, _), going in self._moving.items() if going.pieces and not self.links.paced}
        for going in self._queue:
            if busy >= self.slots:
                return
            if going.asked or going.aside or going.to in blocked:
                blocked.add(going.to)
                continue
            going.asked = True
            blocked.add(going.to)
            busy += 1
            self._send_head(going, wire.REQ, max(going.ready, self._out_free) if self.links.paced else now)

    def _send_head(self, going: Outgoing, kind: int, time: float, offset: int = 0, piece: Any = None) -> None:
        header = going.head(kind, self.me, self.life, offset, time)
        self._outbox.append((going.to, wire.pack(header, self.agreed.token), piece))

    def _answer(self, header: Header, now: float) -> None:
        """A receiver's ``GRANT``, ``HOLD``, ``RESUME`` or ``DONE``."""
        source, sequence = header.source, header.sequence
        old = sequence < self._sequence[source]
        if header.kind == wire.DONE:
            going = self._moving.pop((source, sequence), None)
            if going is None:
                raise misfit(old, f"node {source} confirms message {sequence}, which is not under way")
            if going.motion is not None:
                self._stop(going.motion, max(header.time, going.motion.start))
                if self.transfers is not None:
                    self.transfers.append((going.motion.start, going.motion.end))
            self.confirmed = header.time
            self._conclude(going)
            self._ask(now)
            self.changed.notify_all()
            return
        waiting = next((g for g in self._queue if g.to == source and g.sequence == sequence), None)
        if waiting is None or (header.kind == wire.RESUME) == waiting.asked:
            raise misfit(old, f"node {source} answers message {sequence}, which did not ask")
        if header.kind == wire.GRANT:
            self._queue.remove(waiting)
            self._start(waiting, header.time, now)
        else:
            waiting.asked, waiting.aside = False, header.kind == wire.HOLD
            if not waiting.aside:
                waiting.ready = header.time
        self._ask(now)

    def _conclude(self, going: Outgoing) -> None:
        """Its receiver has it for good."""
        self.acknowledged(going.message)
        self.undelivered[going.to] -= 1
        self.sent["messages"] += 1
        self.sent["bytes"] += len(going.payload)

    def _start(self, going: Outgoing, granted: float, now: float) -> None:
        start = max(granted, self._out_free, now - CREDIT) if self.links.paced else now
        duration = self.links.duration(self.me, going.to, len(going.payload))
        end = start + duration if self.links.paced else float("inf")
        self._out_free = max(self._out_free, end) if self.links.paced else 0.0
        moving = start + self.links.overhead
        going.motion = self.moving_out.add(
            Motion(going.to, going.message.tag, going.message.step, moving, end)
        )
        going.pieces = self.links.pieces(self.me, going.to, len(going.payload), start)
        self._moving[going.to, going.sequence] = going
        self._release(going, now)

    def _release(self, going: Outgoing, now: float) -> None:
        """Put out the pieces that are due; before the last one, the next message's request."""
        while going.pieces and going.pieces[0][0] <= now:
            _, offset, length = going.pieces.pop(0)
            if not going.pieces:
                self._ask(now)
            assert going.motion is not None
            piece = going.payload[offset : offset + length] if length else None
            self._send_head(going, wire.DATA, going.motion.start, offset, piece)

    # ---- receiving ----------------------------------------------------------------------------

    def _request(self, header: Header, now: float) -> None:
        source, current = header.source, self._incoming.get(header.source)
        due = self._expected[source] + (current is not None)
        if header.sequence != due or source in self._requests or source in self._held:
            raise misfit(header.sequence <= due, f"node {source} asks for {header.sequence}; expected {due}")
        if source == self.me:
            raise WireError("a node does not send to itself")
        self._arrivals += 1
        self._requests[source] = (max(header.time, now - CREDIT), self._arrivals, header)
        self._grant(now)

    def _grant(self, now: float) -> None:
        """Grant in order of request while slots are free; put aside those whose inbox is full."""
        while True:
            ready = [
                (at, arrival, source)
                for source, (at, arrival, _) in self._requests.items()
                if at <= now and source not in self._incoming
            ]
            if not ready:
                return
            for at, _, source in sorted(ready):
                if not self._room(source):
                    head = self._requests.pop(source)[2]
                    self._held[source] = head
                    self._reply(head, wire.HOLD, now)
                    break
                if len(self._incoming) >= self.slots:
                    continue
                self._accept(self._requests.pop(source)[2], at, now)
                break
            else:
                return

    def _accept(self, head: Header, asked: float, now: float) -> None:
        tensor, buffer = self._allocate(head.total, head.dtype)
        start = max(asked, self._in_free, now - CREDIT) if self.links.paced else float("inf")
        motion = self.moving_in.add(Motion(head.source, head.tag, head.step, start + self.links.overhead))
        self._incoming[head.source] = Incoming(head, tensor, buffer, motion)
        self._reply(head, wire.GRANT, start if self.links.paced else now)

    def _data(self, header: Header, payload: memoryview | None) -> None:
        """One piece of payload, copied into place outside the lock (only this thread writes it)."""
        with self.changed:
            if not self.lives.takes(header):
                return
            coming = self._incoming.get(header.source)
            if coming is None:
                old = header.sequence < self._expected[header.source]
                raise misfit(old, f"data from node {header.source} without a grant")
            head = coming.head
            if (header.sequence, header.offset, header.total, header.dtype) != (
                head.sequence, coming.received, head.total, head.dtype,
            ):  # fmt: skip
                old = (header.sequence, header.offset) < (head.sequence, coming.received)
                raise misfit(old, f"data from node {header.source} that does not follow")
            if not coming.begun:
                coming.begun = True
                now = self.clock()
                coming.motion.start = min(header.time, now + CREDIT)
                if self.links.paced:
                    rate = self.links.rate(head.source, self.me)
                    coming.motion.end = coming.motion.start + head.total / rate
        if payload:
            target = np.frombuffer(coming.buffer, np.uint8)[header.offset : header.offset + len(payload)]
            np.copyto(target, np.frombuffer(payload, np.uint8))  # lets other threads run, a slice would not
        with self.changed:
            coming.received += len(payload) if payload else 0
            now = self.clock()
            due = coming.motion.end if self.links.paced else now
            if coming.complete and due <= now and self._incoming.get(header.source) is coming:
                self._deliver(header.source, coming, now)
                self._grant(now)

    def _deliver(self, source: int, coming: Incoming, now: float) -> None:
        head = coming.head
        del self._incoming[source]
        if not self.links.paced:
            self._stop(coming.motion, max(now, coming.motion.start))
        self._in_free = coming.motion.end
        self._expected[source] += 1
        self.received["messages"] += 1
        self.received["bytes"] += head.total
        if head.tag == self.beside:
            self.asking.add(source)
        elif not self._discarding:
            self.mailbox.deliver(
                Message(head.tag, coming.tensor, head.step, head.count, head.versions, head.number, source),
                coming.motion.end,
            )
        self._reply(head, wire.DONE, coming.motion.end)
        self.changed.notify_all()

    def _reply(self, head: Header, kind: int, time: float) -> None:
        self._frame(head.source, Header(kind, self.me, head.sequence, time=time))

    def _frame(self, to: int, header: Header) -> None:
        header.incarnation = self.life
        self._outbox.append((to, wire.pack(header, self.agreed.token), None))

    @staticmethod
    def _stop(motion: Motion | None, at: float) -> None:
        if motion is not None:
            motion.end = min(motion.end, at)
