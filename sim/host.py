"""A node's host: its inbox, who has left as far as it knows, and where its main program's time goes.

Rules this module obeys (DESIGN, section 5):

* Every second of the main program is compute, update, or, while it is blocked: receive if bytes that
  it awaits move in, else send if its own bytes move out, else wait. Latency and overhead are wait.
* A server awaits whatever comes; what is wait for a worker is idle for a server.
* Departures stand in order among the messages: a node's ``live`` changes when its program has taken
  all that came before, or blocks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from mypy_extensions import mypyc_attr

from core.effects import Poll, Receive
from core.node import JOINED, LEFT, Joined, Left, Message, Node
from core.record import PARTS, StepLog
from sim.clock import Clock
from sim.endpoint import Endpoint
from sim.network import Pair, Transfer

if TYPE_CHECKING:
    from numpy.random import Generator

    from sim.backward import Backward
    from sim.compute import Device
    from sim.cores import Cores
    from sim.programs import Pump
    from sim.sampling import Sums

__all__ = ["Entry", "Host", "Roster", "matches"]

COMPUTE, UPDATE, SEND, WAIT, RECEIVE, IDLE = range(len(PARTS))

Entry = tuple[int, Any, Pair | None]
"""(sequence, message, Left or Joined, connection that it came by)."""


RECENT = 16
"""Views of who is there that are kept for those who read of the same departures a little later."""


class Roster:
    """Who has left and joined, in order; and which blocked programs want to know.

    departed  who is not there; quiet: nobody has ever been away
    back      of those that have joined: length of the log that tells of it. Who has not read so far knows
              only of a node that is gone
    views     who is there for those that have read so much of the log, as long as there is one
    recent    the last views that were made: who reads entry by entry passes through all of them
    """

    __slots__ = ("back", "departed", "listening", "log", "quiet", "recent", "sequence", "views")

    def __init__(self) -> None:
        self.sequence = 0
        self.log: list[tuple[int, Left | Joined]] = []
        self.departed: set[int] = set()
        self.back: dict[int, int] = {}
        self.quiet = True
        self.listening: dict[Pump, None] = {}
        self.views: WeakValueDictionary[int, set[int]] = WeakValueDictionary()
        self.recent: deque[set[int]] = deque(maxlen=RECENT)

    def leave(self, rank: int) -> Left:
        """Note a departure."""
        left = Left(rank)
        self.sequence += 1
        self.log.append((self.sequence, left))
        self.departed.add(rank)
        self.quiet = False
        return left

    def join(self, rank: int) -> Joined:
        """Note an arrival."""
        joined = Joined(rank)
        self.sequence += 1
        self.log.append((self.sequence, joined))
        self.departed.discard(rank)
        self.back[rank] = len(self.log)
        self.quiet = False
        return joined

    def view(self, told: int, live: set[int], gone: set[int], come: set[int]) -> set[int]:
        """Who is there for who has read ``told`` entries; before ``gone`` and ``come`` it was ``live``."""
        found = self.views.get(told)
        if found is None:
            found = self.views[told] = live - gone | come
            self.recent.append(found)
        return found


def matches(want: Receive | Poll, message: Message) -> bool:
    """Whether ``message`` is one that ``want`` asks for."""
    tag = want.tag
    return (
        (tag == message.tag or (type(tag) is not str and message.tag in tag))
        and (want.source is None or want.source == message.source)
        and (want.step is None or want.step == message.step)
    )


@mypyc_attr(allow_interpreted_subclasses=True)
class Host(Endpoint):
    """A node in the simulator."""

    __slots__ = (
        "backward",
        "base",
        "blends",
        "clock",
        "compute",
        "crashed",
        "device",
        "end",
        "ended",
        "gradient",
        "greeted",
        "heard",
        "idle",
        "inbox",
        "incoming",
        "lags",
        "leaving",
        "lost",
        "mark",
        "matched",
        "node",
        "own_live",
        "pieces",
        "programs",
        "receive",
        "roster",
        "row",
        "send",
        "senders",
        "server",
        "spans",
        "steps",
        "tensors",
        "told",
        "update",
        "wait",
        "waiting",
        "want",
    )  # fmt: skip

    node: Node
    tensors: Any
    gradient: Any
    device: Device | Cores | None
    lags: Generator

    def __init__(
        self,
        id: int,
        server: bool,
        clock: Clock,
        roster: Roster,
        steps: StepLog | Sums,
        spans: StepLog | None,
    ) -> None:
        super().__init__(id)
        self.server, self.clock, self.roster = server, clock, roster
        self.steps, self.spans, self.device = steps, spans, None
        self.programs: list[Pump] = []
        self.inbox: dict[Any, deque[Entry]] = {}
        self.waiting: list[Pump] = []
        self.senders: list[Pump] = []
        self.incoming: dict[Transfer, None] = {}
        self.told = 0.0
        self.heard = self.greeted = self.base = 0
        self.ended = self.leaving = self.crashed = self.own_live = False
        self.want: Receive | Poll | None = None
        self.backward: Backward | None = None
        self.pieces: Backward | None = None
        self.matched = self.blends = self.lost = 0
        self.compute = self.update = self.send = self.wait = self.receive = 0.0
        self.mark = self.row = self.end = 0.0

    # Time

    def block(self, want: Receive | Poll | None) -> None:
        """The main program is blocked from now on; ``want`` is what it awaits, if a message."""
        if self.backward is not None:
            return
        self.mark = self.clock._now
        self.blocked = True
        self.want = want
        if not self.server:
            self.matched = 0
            if want is None or not self.incoming:
                return
            if want.source is None and want.step is None and type(want.tag) is str:
                self.matched = [transfer.message.tag for transfer in self.incoming].count(want.tag)
            else:
                self.matched = sum([matches(want, transfer.message) for transfer in self.incoming])

    def unblock(self) -> None:
        """The main program goes on."""
        if not self.blocked:
            return
        now = self.clock._now
        if now > self.mark:
            self.book(now)
        self.blocked = False

    def book(self, now: float) -> None:
        """Book the time since the last mark to what the blocked program was about."""
        if self.spans is not None:
            self.span(self.blocked_in, self.mark, now)
        passed = now - self.mark
        self.mark = now
        if self.matched:
            self.receive += passed
        elif self.out:
            self.send += passed
        else:
            self.wait += passed

    @property
    def blocked_in(self) -> int:
        """The kind of span that the blocked program is in."""
        return RECEIVE if self.matched else SEND if self.out else IDLE if self.server else WAIT

    def span(self, kind: int, start: float, end: float) -> None:
        """Note what the main program did from ``start`` to ``end``."""
        if self.spans is not None and end > start:
            self.spans.append((self.id, kind, start, end))

    def close_row(self, now: float) -> None:
        """Write the row of the step that is over and begin the next."""
        node = self.node
        parts = (self.compute, self.update, self.send, self.wait, self.receive)
        self.steps.append((self.id, node.step - 1, self.row, now, *parts, node.blends - self.blends))
        self.compute = self.update = self.send = self.wait = self.receive = 0.0
        self.row, self.blends = now, node.blends

    def turning(self, now: float) -> None:
        if now > self.mark:
            self.book(now)

    def receiving(self, transfer: Transfer, now: float) -> None:
        if self.server:
            if self.blocked and not self.matched and now > self.mark:
                self.book(now)
            self.matched += 1
            return
        self.incoming[transfer] = None
        if self.blocked and self.want is not None and matches(self.want, transfer.message):
            if not self.matched and now > self.mark:
                self.book(now)
            self.matched += 1

    def received(self, transfer: Transfer, now: float) -> None:
        if self.server:
            if self.blocked and self.matched == 1 and now > self.mark:
                self.book(now)
            self.matched -= 1
            return
        del self.incoming[transfer]
        if self.blocked and self.want is not None and matches(self.want, transfer.message):
            if self.matched == 1 and now > self.mark:
                self.book(now)
            self.matched -= 1

    # Messages

    def late(self) -> float:
        """Drawn anew for every message: it waits for cores that others happen to use."""
        return self.lag * float(self.lags.standard_exponential()) if self.lag else 0.0

    def delivered(self, transfer: Transfer) -> None:
        """Hand the message to the program that waits for it, or put it into the inbox."""
        message, pair = transfer.message, transfer.pair
        for pump in self.waiting:
            want = pump.want
            plain = want.tag == message.tag and want.source is None and want.step is None
            if plain or matches(want, message):
                pair.unread -= 1
                self.waiting.remove(pump)
                pump.wake(message)
                return
        if self.ended and len(self.programs) == 1:
            pair.unread -= 1
            return
        roster = self.roster
        roster.sequence += 1
        queue = self.inbox.get(message.tag)
        if queue is None:
            queue = self.inbox[message.tag] = deque()
        queue.append((roster.sequence, message, pair))

    def released(self, transfer: Transfer) -> None:
        """One of this node's messages is delivered or lost."""
        if self.senders:
            for pump in tuple(self.senders):
                pump.retry(transfer.pair)
        if self.leaving:
            self.programs[0].depart_when_clear()

    def take(self, want: Receive | Poll) -> Any:
        """The first thing in the inbox that ``want`` asks for, taken out of it; None if there is none."""
        found = self._find(want)
        if found is None:
            source = want.source
            gone = source is not None and (source in self.roster.departed or self._replaced(source))
            if self.told < len(self.roster.log):
                self.learn(None)
            return Left(source) if gone and source is not None else None
        sequence, message, pair = found
        if self.told < len(self.roster.log):
            self.learn(sequence)
        if pair is None:
            if message.tag == LEFT:
                self.heard += 1
            else:
                self.greeted += 1
        else:
            queue = self.inbox[message.tag]
            if queue[0] is found:
                queue.popleft()
            else:
                queue.remove(found)
            pair.read()
        return message

    def _find(self, want: Receive | Poll) -> Entry | None:
        tags = (want.tag,) if type(want.tag) is str else want.tag
        best: Entry | None = None
        for tag in tags:
            if tag in (LEFT, JOINED):
                entry = self._news(tag, want.source)
            else:
                queue = self.inbox.get(tag)
                entry = next((e for e in queue if matches(want, e[1])), None) if queue else None
            if entry is not None and (best is None or entry[0] < best[0]):
                best = entry
        return best

    def _news(self, tag: str, source: int | None) -> Entry | None:
        """The next departure or arrival that this node has not heard of; of a given source, see ``take``."""
        log = self.roster.log
        at = self.heard if tag == LEFT else self.greeted
        while source is None and at < len(log) and (log[at][1].rank == self.id or log[at][1].tag != tag):
            at += 1
        if tag == LEFT:
            self.heard = at
        else:
            self.greeted = at
        return (*log[at], None) if source is None and at < len(log) else None

    def _replaced(self, source: int) -> bool:
        """Whether ``source`` has gone and come again since this node last knew."""
        log = self.roster.log
        unread = log[int(self.told) :] if self.told < len(log) else []
        return any(news.rank == source and news.tag == LEFT for _, news in unread)

    def learn(self, before: int | None) -> None:
        """Bring the node's ``live`` up to date with who left and joined (before a sequence number)."""
        log = self.roster.log
        told = int(self.told)
        gone: set[int] = set()
        come: set[int] = set()
        while told < len(log) and (before is None or log[told][0] <= before):
            news = log[told][1]
            here, away = (come, gone) if news.tag == JOINED else (gone, come)
            here.add(news.rank)
            away.discard(news.rank)
            told += 1
            if news.rank == self.id and news.tag == JOINED:
                self.own_live = False  # until then it knew of itself before all others did
        self.told = float(told)
        if self.own_live:
            self.node.live -= gone
            self.node.live |= come
        elif gone or come:
            self.node.live = self.roster.view(told, self.node.live, gone, come)

    # The record

    @property
    def made(self) -> int:
        """Steps that it has completed."""
        return self.node.step

    @property
    def mixed(self) -> int:
        """Global models that it has adopted or mixed in."""
        return self.node.blends

    @property
    def absent(self) -> bool:
        """Whether its replica is none of those that the model is made of."""
        return self.crashed

    @property
    def deaf(self) -> bool:
        """Whether it takes no messages, even from those who do not know that it has gone."""
        return self.crashed

    def unrecorded(self) -> tuple[float, ...]:
        """Seconds by part (without idle) that are in no row."""
        return self.compute, self.update, self.send, self.wait, self.receive
