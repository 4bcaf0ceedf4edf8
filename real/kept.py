"""An endpoint that journals: what it confirms, and what it sends, can be told again by a later life.

Rules this module obeys:

* A message is in the journal before it is confirmed; what a program's ``Send`` took is there before any
  frame of it can go out (both under the endpoint's lock).
* Payloads are written piece by piece as they come in, outside the lock, as they are copied.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.node import Message
from real.endpoint import Endpoint
from real.journal import History, Journal, Key, Place
from real.keeping import Registry
from real.transfers import Incoming, Outgoing
from real.wire import Header

__all__ = ["KeptEndpoint"]


class KeptEndpoint(Endpoint):
    """An endpoint with a journal; give it one with ``keep`` before anything moves."""

    journal: Journal
    registry: Registry

    def keep(self, journal: Journal, registry: Registry) -> None:
        """Write everything there from now on; tensors were made by the registry's ``room``."""
        self.journal, self.registry = journal, registry
        self._places: dict[int, Place] = {}
        self._keys: dict[int, Key] = {}

    def key_of(self, message: Message) -> Key:
        """The name of a message that the program was just given."""
        with self.changed:
            return self._keys.pop(id(message))

    def unread(self) -> list[Key]:
        """The names of messages that the program was not given yet."""
        with self.changed:
            return list(self._keys.values())

    def submit(
        self, pairs: Sequence[tuple[int, Message]], window: float | None = None, lag: float = 0.0
    ) -> bool:
        with self.changed:
            before = {to: self._sequence[to] for to, _ in pairs}
            if not super().submit(pairs, window, lag):
                return False
            self.journal.sent([self._name(to, before) for to, _ in pairs])
            return True

    def _name(self, to: int, before: dict[int, int]) -> Key:
        """What a message to ``to`` was called: dropped ones -1."""
        sequence = before[to]
        if sequence == self._sequence[to]:
            return to, self.life(to), -1
        before[to] += 1
        return to, self.life(to), sequence

    def life(self, node: int) -> int:
        """Which incarnation of ``node`` this one talks to."""
        return 0

    def _accept(self, head: Header, asked: float, now: float) -> None:
        super()._accept(head, asked, now)
        self._places[head.source] = self.journal.reserve(head.total)

    def _data(self, header: Header, payload: memoryview | None) -> None:
        with self.changed:
            coming, place = self._incoming.get(header.source), self._places.get(header.source)
            follows = coming is not None and (header.sequence, header.offset, header.total) == (
                coming.head.sequence, coming.received, coming.head.total,
            )  # fmt: skip
        if payload and follows and place is not None:
            self.journal.store(place, header.offset, payload)
        super()._data(header, payload)

    def _deliver(self, source: int, coming: Incoming, now: float) -> None:
        head = coming.head
        key = head.source, head.incarnation, head.sequence
        self.journal.arrived(head, self._places.pop(source), coming.buffer)
        self.registry.adopt(key, coming.tensor)
        super()._deliver(source, coming, now)
        self._keys[id(self.mailbox.items[-1][0])] = key

    def _conclude(self, going: Outgoing) -> None:
        super()._conclude(going)
        self.journal.done((going.to, self.life(going.to), going.sequence))

    # ---- a later life -------------------------------------------------------------------------

    def recall(
        self, history: History, unread: Sequence[tuple[Key, Message]], unsent: Sequence[tuple[Key, Message]],
        left: Sequence[int],
    ) -> None:  # fmt: skip
        """Be where the journal ends: what has come, what the program has not read, what nobody confirmed.

        left    ranks of which the program knows that they have left

        It is parted from all others until they say ``HELLO``.
        """
        with self.changed:
            now = self.clock()
            self.parted.update(node for node in range(self.agreed.nodes) if node != self.me)
            for one in history.arrived.values():
                source, incarnation, sequence = one.key
                if incarnation == self.life(source):
                    self._expected[source] = max(self._expected[source], sequence + 1)
                self.received["messages"] += 1
                self.received["bytes"] += one.nbytes
            for record in history.answers:
                for to, incarnation, sequence in record[2] if record[0] == "sent" else ():
                    if incarnation == self.life(to):
                        self._sequence[to] = max(self._sequence[to], sequence + 1)
            for key, message in unread:
                self.mailbox.deliver(message, now)
                self._keys[id(message)] = key
            for (to, _, sequence), message in unsent:
                self._recall_sent(to, sequence, message, now)
            self.sent["messages"] = sum(count for count, _ in history.done.values())
            self.mailbox.left.update(left)
            self._told.update(left)

    def _recall_sent(self, to: int, sequence: int, message: Message, now: float) -> None:
        dtype, payload = self._expose(message.tensor)
        self.undelivered[to] += 1
        ready = now + self.links.path_latency(self.me, to)
        self._queue.append(Outgoing(to, message, dtype, payload, sequence, ready))
