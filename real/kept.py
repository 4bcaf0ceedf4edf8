"""An endpoint that journals: what it confirms, and what it sends, can be told again by a later life.

Rules this module obeys:

* A message is in the journal before it is confirmed; what a program's ``Send`` took is there before any
  frame of it can go out (both under the endpoint's lock). News has its place among the messages.
* What was sent to a life that has ended is done with, too: nobody will confirm it.
* Payloads are written piece by piece as they come in, outside the lock, as they are copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from core.node import Joined, Left, Message
from real.endpoint import Endpoint
from real.journal import History, Journal, Key, Place
from real.keeping import Registry
from real.mailbox import GONE, Mailbox
from real.transfers import Incoming, Outgoing
from real.wire import Header

__all__ = ["Item", "KeptEndpoint"]

Item = tuple[Message | Left | Joined, Any]
"""What a program was not given yet: a message and its name, or news and the life that it tells of."""


class _KeptMailbox(Mailbox):
    """A mailbox whose news are in the journal, in their place among the messages."""

    journal: Journal

    def _tell(self, news: Left | Joined, life: int, now: float) -> None:
        self.journal.news(news.rank, life)
        super()._tell(news, life, now)


class KeptEndpoint(Endpoint):
    """An endpoint with a journal; give it one with ``keep`` before anything moves."""

    journal: Journal
    registry: Registry
    _tell: Callable[[Left | Joined], None]

    @property
    def told(self) -> Callable[[Left | Joined], None]:
        """What is called when the program knows of news: the journal, then what was set."""
        return self._learned

    @told.setter
    def told(self, tell: Callable[[Left | Joined], None]) -> None:
        self._tell = tell

    def _learned(self, news: Left | Joined) -> None:
        self.journal.told()
        self._tell(news)

    def keep(self, journal: Journal, registry: Registry) -> None:
        """Write everything there from now on; tensors were made by the registry's ``room``."""
        self.journal, self.registry = journal, registry
        self.mailbox = _KeptMailbox()
        self.mailbox.journal = journal
        self._places: dict[int, Place] = {}
        self._keys: dict[int, Key] = {}

    def key_of(self, message: Message) -> Key:
        """The name of a message that the program was just given."""
        with self.changed:
            return self._keys.pop(id(message))

    def submit(
        self, pairs: Sequence[tuple[int, Message]], window: float | None = None, lag: float = 0.0,
        *, unknown: bool = False,
    ) -> bool:  # fmt: skip
        with self.changed:
            before = {to: self._sequence[to] for to, _ in pairs}
            if not super().submit(pairs, window, lag, unknown=unknown):
                return False
            self.journal.sent([self._name(to, before) for to, _ in pairs])
            return True

    def _name(self, to: int, before: dict[int, int]) -> Key:
        """What a message to ``to`` was called: dropped ones -1."""
        sequence = before[to]
        if sequence == self._sequence[to]:
            return to, self.lives.of[to], -1
        before[to] += 1
        return to, self.lives.of[to], sequence

    def _accept(self, head: Header, asked: float, now: float) -> None:
        super()._accept(head, asked, now)
        self._places[head.source] = self.journal.reserve(head.total)

    def _data(self, header: Header, payload: memoryview | None) -> None:
        with self.changed:
            coming, place = self._incoming.get(header.source), self._places.get(header.source)
            follows = coming is not None and (
                (header.incarnation, header.sequence, header.offset, header.total, header.dtype)
                == (coming.head.incarnation, coming.head.sequence, coming.received, coming.head.total,
                    coming.head.dtype)
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
        self.journal.done((going.to, self.lives.of[going.to], going.sequence), len(going.payload))

    def depart(self, rank: int) -> None:
        with self.changed:
            going = [*self._queue, *self._moving.values()]
            for sequence in sorted(one.sequence for one in going if one.to == rank):
                self.journal.void((rank, self.lives.of[rank], sequence))
            super().depart(rank)

    # ---- a later life -------------------------------------------------------------------------

    def recall(
        self, history: History, items: Sequence[Item], unsent: Sequence[tuple[Key, Message]], known: int,
        workers: int,
    ) -> None:  # fmt: skip
        """Be where the journal ends, after ``introduce``: parted from all others until they say ``HELLO``.

        items   what the program was not given yet: messages with their names, news with their lives
        unsent  what it sent and nobody confirmed
        known   how many pieces of news the program knows of
        workers how many there are: that other servers came back meanwhile is no news
        """
        with self.changed:
            now = self.clock()
            self.parted.update(set(range(self.agreed.nodes)) - {self.me} - self.gone)
            for one in history.arrived.values():
                source, life, sequence = one.key
                if life == self.lives.of[source]:
                    self._expected[source] = max(self._expected[source], sequence + 1)
                self.received["messages"] += 1
                self.received["bytes"] += one.nbytes
            for record in history.answers:
                for to, life, sequence in record[2] if record[0] == "sent" else ():
                    if life == self.lives.of[to]:
                        self._sequence[to] = max(self._sequence[to], sequence + 1)
            self.sent.update(history.sent)
            self._recall_news(history, items, known, workers, now)
            for (to, life, sequence), message in unsent:
                if to not in self.gone and life == self.lives.of[to]:
                    self._recall_sent(to, sequence, message, now)
                else:
                    self.journal.void((to, life, sequence))

    def _recall_news(
        self, history: History, items: Sequence[Item], known: int, workers: int, now: float
    ) -> None:
        """The mailbox as it was, with what has happened since at its end."""
        mailbox, lives = self.mailbox, self.lives
        current = dict(lives.known)
        news = [one for one in history.arrivals if len(one) == 2]
        began = {rank: life for rank, life in history.known.items() if rank < workers}
        for rank, life in {**began, **dict(news[:known])}.items():
            lives.known[rank] = life
        heard = {**began, **dict(news)}
        mailbox.left = {rank for rank, life in heard.items() if life == GONE}
        for item, name in items:
            if isinstance(item, Message):
                mailbox.deliver(item, now)
                self._keys[id(item)] = name
            else:
                mailbox.items.append((item, now))
                mailbox.fresh.append((item, name))
        del mailbox.fresh[: len(mailbox.fresh) - (len(news) - known)]
        for rank, life in heard.items():
            if life != current[rank]:
                if life != GONE:
                    mailbox.depart(rank, now)
                if current[rank] != GONE:
                    mailbox.join(rank, current[rank], now)

    def _recall_sent(self, to: int, sequence: int, message: Message, now: float) -> None:
        dtype, payload = self._expose(message.tensor)
        self.undelivered[to] += 1
        ready = now + self.links.path_latency(self.me, to)
        self._queue.append(Outgoing(to, message, dtype, payload, sequence, ready))
