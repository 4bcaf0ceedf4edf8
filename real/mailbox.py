"""What has arrived at a node and is not read yet, and what was moving in and out when.

Rules this module obeys:

* No I/O, no clock, no locks (``real.endpoint`` holds its lock around it).
* Arrival order is kept over all sources; news (who left, who joined) has its place in that order.
* The node's programs know of a piece of news when one of them has taken what came after it, or found
  nothing to take: ``learned`` then holds it, whether or not any program asks for such news.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from core.node import Joined, Left, Message

__all__ = ["GONE", "Mailbox", "Motion", "Traffic"]


@dataclass(slots=True, eq=False)
class Motion:
    """One transfer: with whom, what, from when to when (``end`` infinite while it moves); seconds."""

    peer: int
    tag: str
    step: int
    start: float
    end: float = float("inf")

    def postpone(self, seconds: float, since: float) -> None:
        """Nothing moved for so long, ``since`` then: it ends later, and begins later if it had not begun."""
        self.end += seconds
        if self.start > since:
            self.start += seconds

    def matches(self, tags: tuple[str, ...], source: int | None, step: int | None) -> bool:
        """Whether a ``Receive`` with these arguments awaits it."""
        return (
            self.tag in tags
            and (source is None or self.peer == source)
            and (step is None or self.step == step)
        )


class Traffic:
    """Recent transfers in one direction; old ones are forgotten as the booking advances."""

    def __init__(self) -> None:
        self.motions: list[Motion] = []

    def add(self, motion: Motion) -> Motion:
        """Note a transfer that begins; returns it."""
        self.motions.append(motion)
        return motion

    def forget(self, before: float) -> None:
        """Drop transfers that ended at or before ``before``."""
        self.motions = [m for m in self.motions if m.end > before]

    def spans(
        self, start: float, end: float, chosen: Iterable[Motion] | None = None
    ) -> list[tuple[float, float]]:
        """Union of the (chosen) transfers within [start, end], as disjoint rising intervals."""
        motions = self.motions if chosen is None else chosen
        clipped = sorted(
            (max(m.start, start), min(m.end, end)) for m in motions if m.end > start and m.start < end
        )
        union: list[tuple[float, float]] = []
        for a, b in clipped:
            if union and a <= union[-1][1]:
                union[-1] = (union[-1][0], max(union[-1][1], b))
            elif b > a:
                union.append((a, b))
        return union


GONE = -1
"""In place of a life: of a node that has left."""


class Mailbox:
    """Unread messages and news in order of arrival.

    left     who is not there
    fresh    (news, life that it tells of or ``GONE``) that no program knows of yet; learned: the next ones
             that are known, for the endpoint to take away
    """

    def __init__(self) -> None:
        self.items: list[tuple[Message | Left | Joined, float]] = []
        self.unread: Counter[int] = Counter()
        self.left: set[int] = set()
        self.fresh: list[tuple[Left | Joined, int]] = []
        self.learned: list[tuple[Left | Joined, int]] = []

    def deliver(self, message: Message, due: float) -> None:
        """The last byte of ``message`` is in; ``due`` is when it should have been (monotonic)."""
        self.items.append((message, due))
        self.unread[message.source] += 1

    def depart(self, rank: int, now: float) -> None:
        """``rank`` has left (once: later calls change nothing)."""
        if rank not in self.left:
            self.left.add(rank)
            self._tell(Left(rank), GONE, now)

    def join(self, rank: int, life: int, now: float) -> None:
        """``rank`` is there (again), in its life number ``life``."""
        self.left.discard(rank)
        self._tell(Joined(rank), life, now)

    def _tell(self, news: Left | Joined, life: int, now: float) -> None:
        self.items.append((news, now))
        self.fresh.append((news, life))

    def _learn(self, place: int) -> None:
        """The programs know of the news among the first ``place`` items; what was handed out is known."""
        for item, _ in self.items[:place] if self.fresh else ():
            if self.fresh and item is self.fresh[0][0]:
                self.learned.append(self.fresh.pop(0))

    def clear(self) -> None:
        """Forget everything unread; who has left stays known."""
        self._learn(len(self.items))
        self.items.clear()
        self.unread.clear()

    def take(
        self, tags: tuple[str, ...], source: int | None, step: int | None
    ) -> tuple[Message | Left | Joined | None, float]:
        """Remove and return the first item that matches (``core.effects.Receive``) and when it was due.

        A source that has left, or has left and come again since the programs last knew, is answered by
        ``Left``: what they await of its former life does not come.
        """
        for place, (item, due) in enumerate(self.items):
            if item.tag not in tags:
                continue
            if not isinstance(item, Message):
                if source in (None, item.rank):
                    self._learn(place + 1)
                    del self.items[place]
                    return item, due
            elif (source is None or item.source == source) and (step is None or item.step == step):
                self._learn(place)
                del self.items[place]
                self.unread[item.source] -= 1
                return item, due
        gone = source is not None and (
            source in self.left or any(type(news) is Left and news.rank == source for news, _ in self.fresh)
        )
        self._learn(len(self.items))
        return (Left(source) if gone and source is not None else None), float("inf")
