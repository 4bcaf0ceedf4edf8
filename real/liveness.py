"""Whether a node's links are alive: who waits on whom, and has not heard from there for too long.

Rules this module obeys:

* Sans I/O: time and what is awaited come in, whom to ping and who is silent go out.
* Nobody is pinged who has just been heard, or on whom nothing waits: where data flow, or nobody
  communicates, this costs nothing.
* Silence counts from when one began to wait, or from the last frame, whichever is later. Whoever is
  silent is reported again and again until it is heard; what follows from it is the launcher's to decide.
"""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["LOOKS", "Watch"]

LOOKS = 5
"""Looks within one timeout: silence is noticed late by a fifth of it at most."""

_MOST_SECONDS = 1.0


class Watch:
    """What one node knows of its peers' silence.

    timeout   seconds of silence after which a peer is reported
    interval  seconds between two looks
    heard     peer -> when its last frame came (the mover's clock)
    """

    def __init__(self, timeout: float) -> None:
        self.timeout, self.interval = timeout, min(timeout / LOOKS, _MOST_SECONDS)
        self.heard: dict[int, float] = {}
        self._waiting: dict[int, float] = {}

    def look(self, now: float, awaited: Collection[int]) -> tuple[list[int], list[int]]:
        """(whom to ping, who is silent), given on whom something of ours waits."""
        self._waiting = {peer: self._waiting.get(peer, now) for peer in sorted(awaited)}
        quiet = {peer: now - max(since, self.heard.get(peer, since)) for peer, since in self._waiting.items()}
        pings = [peer for peer, seconds in quiet.items() if seconds >= self.interval / 2]
        return pings, [peer for peer, seconds in quiet.items() if seconds >= self.timeout]

    def since(self, start: float) -> list[int]:
        """Who has been heard since then."""
        return sorted(peer for peer, at in self.heard.items() if at >= start)
