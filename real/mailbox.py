"""What has arrived at a node and is not read yet, and what was moving in and out when.

Rules this module obeys: no I/O, no clock, no locks (``real.endpoint`` holds its lock around it).
Arrival order is kept over all sources; a departure takes its place in that order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from core.node import LEFT, Left, Message

__all__ = ["Mailbox", "Motion", "Traffic"]


@dataclass(slots=True, eq=False)
class Motion:
    """One transfer: with whom, what, from when to when (``end`` infinite while it moves); seconds."""

    peer: int
    tag: str
    step: int
    start: float
    end: float = float("inf")

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


class Mailbox:
    """Unread messages and departures in order of arrival."""

    def __init__(self) -> None:
        self.items: list[tuple[Message | Left, float]] = []
        self.unread: Counter[int] = Counter()
        self.left: set[int] = set()

    def deliver(self, message: Message, due: float) -> None:
        """The last byte of ``message`` is in; ``due`` is when it should have been (monotonic)."""
        self.items.append((message, due))
        self.unread[message.source] += 1

    def depart(self, rank: int, now: float) -> None:
        """``rank`` has left (once: later calls change nothing)."""
        if rank not in self.left:
            self.left.add(rank)
            self.items.append((Left(rank), now))

    def clear(self) -> None:
        """Forget everything unread; who has left stays known."""
        self.items.clear()
        self.unread.clear()

    def take(
        self, tags: tuple[str, ...], source: int | None, step: int | None
    ) -> tuple[Message | Left | None, float]:
        """Remove and return the first item that matches (``core.effects.Receive``) and when it was due."""
        for place, (item, due) in enumerate(self.items):
            if type(item) is Left:
                if LEFT in tags and source in (None, item.rank):
                    del self.items[place]
                    return item, due
            elif (
                type(item) is Message
                and item.tag in tags
                and (source is None or item.source == source)
                and (step is None or item.step == step)
            ):
                del self.items[place]
                self.unread[item.source] -= 1
                return item, due
        if source is not None and source in self.left:
            return Left(source), float("inf")
        return None, float("inf")
