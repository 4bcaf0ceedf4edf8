"""Who is cut off: what nodes tell the launcher of each other's silence, weighed.

Rules this module obeys:

* Sans I/O. A report alone condemns nobody: it starts a survey, in which every node asks every other one
  for a sign of life and tells whom it heard.
* If a pair that was reported still does not hear each other, one of the two is cut off: the one that
  misses more of the others, or is missed by more of them. Where that says nothing (two nodes in all), the
  worker goes and the server stays, or else the one of higher id.
* A survey ends when all have answered or ``patience`` is over: who does not answer it has no say. Surveys
  are numbered: an answer to a former one that comes late says nothing about this one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from real.member import Member

__all__ = ["Survey"]


class Survey:
    """The launcher's view of the links between nodes; nodes from ``workers`` on are servers.

    seconds  how long nodes listen for each other in a survey, at a heartbeat timeout of ``timeout``
    number   of the survey that is on, or was the last; 0 before the first
    """

    def __init__(self, workers: int, timeout: float) -> None:
        self.workers = workers
        self.seconds = min(timeout / 2, 1.0)
        self.patience = self.seconds + max(1.0, timeout)
        self.number = 0
        self._reported: set[frozenset[int]] = set()
        self._began: float | None = None
        self._asked: set[int] = set()
        self._heard: dict[int, set[int]] = {}

    def beat(self, by: int, silent: Iterable[int], found: tuple[int, Iterable[int]] | None) -> None:
        """What a sign of life of node ``by`` says of the others; ``found``: a survey, and whom it heard."""
        self.missed(by, silent)
        if found is not None:
            self.told(by, *found)

    def check(self, now: float, alive: Mapping[int, Member]) -> list[Member]:
        """Ask the living where that is called for; returns who is cut off, once that is known."""
        if self.begins(now, alive):
            for member in alive.values():
                member.tell(do="survey", number=self.number, seconds=self.seconds)
        return [alive[node] for node in self.verdict(now, alive)]

    def missed(self, by: int, peers: Iterable[int]) -> None:
        """Node ``by`` waits on ``peers`` and has heard nothing of them for too long."""
        self._reported |= {frozenset((by, peer)) for peer in peers if peer != by}

    def told(self, by: int, number: int, peers: Iterable[int]) -> None:
        """In survey ``number``, ``by`` heard ``peers``."""
        if by in self._asked and number == self.number:
            self._heard[by] = set(peers)

    def begins(self, now: float, alive: Collection[int]) -> bool:
        """Whether all nodes are to be asked now: there are reports, and no survey is on."""
        self._reported = {pair for pair in self._reported if pair <= set(alive)}
        if self._began is not None or not self._reported:
            return False
        self._began, self._asked, self._heard = now, set(alive), {}
        self.number += 1
        return True

    def verdict(self, now: float, alive: Collection[int]) -> list[int]:
        """Who is cut off, worst first, once the survey is over; else nobody."""
        over = self._began is not None and now >= self._began + self.patience
        if self._began is None or not (over or self._heard.keys() >= self._asked & set(alive)):
            return []
        left, found = set(alive) & self._asked, list[int]()
        while silent := [pair for pair in self._reported if pair <= left and self._apart(*pair)]:
            suspects = frozenset().union(*silent)
            worst = max(suspects, key=lambda node: self._weight(node, left))
            left.discard(worst)
            found.append(worst)
        self._began, self._reported = None, set()
        return found

    def _apart(self, one: int, other: int) -> bool:
        """Whether either of the two, having looked, did not hear the other."""
        return any(a in self._heard and b not in self._heard[a] for a, b in ((one, other), (other, one)))

    def _weight(self, node: int, left: Collection[int]) -> tuple[int, bool, int]:
        apart = sum(self._apart(node, other) for other in left if other != node)
        return apart, node < self.workers, node
