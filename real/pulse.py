"""Signs of life between nodes: asked for where something waits, on connections that data never block.

Rules this module obeys:

* A ping leaves on a connection of its own, the answer travels on the one that the peer's answers take
  anyway: neither queues behind data. Any frame of a peer is a sign of life (``heard``).
* The thread that moves frames does all this; orders and findings pass through plain attributes.
* No frame of ours leaves while our links are cut. That others are silent then is noticed all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from math import inf
from typing import Any

import zmq

from real.liveness import Watch

__all__ = ["MOST_PINGS", "Pulse"]

MOST_PINGS = 8
"""Pings that may wait for a connection."""

_QUARTERS = 4


class Pulse:
    """What a transport knows of its peers' being there.

    dial    opens a connection to a peer that is good for pings; ping: the frame
    silent  peers on which something waits, and which were silent for longer than ``watch`` allows
    due     when ``look`` is to be called next
    """

    def __init__(self, dial: Callable[[int], Any], ping: bytes, clock: Callable[[], float]) -> None:
        self._dial, self._ping, self._clock = dial, ping, clock
        self.silent, self.due = list[int](), inf
        self._connections: dict[int, Any] = {}
        self._watch = Watch(inf)
        self._awaited: Callable[[], set[int]] = set
        self._asked: tuple[int, float] | None = None
        self._survey: tuple[int, float, float] | None = None
        self._found: tuple[int, list[int]] | None = None
        self.kick: Callable[[], None] = lambda: None

    def watch(self, timeout: float, awaited: Callable[[], set[int]]) -> None:
        """From now on, note in ``silent`` which of the nodes ``awaited()`` say nothing for ``timeout``."""
        self._watch, self._awaited = Watch(timeout), awaited
        self.due = 0.0
        self.kick()

    def survey(self, number: int, seconds: float) -> None:
        """Ask all other nodes for a sign of life; ``surveyed`` says who gave one within ``seconds``."""
        self._asked, self.due = (number, seconds), 0.0
        self.kick()

    def surveyed(self) -> tuple[int, list[int]] | None:
        """The number of a survey that has ended, and who was heard in it, once; else None."""
        found, self._found = self._found, None
        return found

    # ---- the mover's side ---------------------------------------------------------------------

    def heard(self, peer: int) -> None:
        """A frame of ``peer`` has come."""
        self._watch.heard[peer] = self._clock()

    def look(self, now: float, present: Collection[int], cut: bool) -> None:
        """Ask those on whom something waits for signs of life, in a survey all; note who is silent."""
        self.due = now + self._watch.interval  # before orders are read: one that comes later stands
        pings, self.silent = self._watch.look(now, self._awaited() & set(present))
        if self._asked is not None:
            number, seconds = self._asked
            self._survey, self._asked = (number, now, now + seconds), None
        if self._survey is not None:
            number, began, end = self._survey
            if now < end:
                pings, self.due = list(present), min(self.due, now + (end - began) / _QUARTERS)
            else:
                self._found, self._survey = (number, self._watch.since(began)), None
        for peer in () if cut else pings:
            if peer not in self._connections:
                self._connections[peer] = self._dial(peer)
            with suppress(zmq.Again):  # asked often enough
                self._connections[peer].send(self._ping, flags=zmq.NOBLOCK)

    def leave(self, peer: int) -> None:
        """Close the connection to ``peer``: it is not there any more, or elsewhere."""
        connection = self._connections.pop(peer, None)
        if connection is not None:
            connection.close(linger=0)

    def close(self) -> None:
        """Close all connections."""
        for peer in list(self._connections):
            self.leave(peer)
