"""Gate: who may go on under a bound on how far workers are apart.

Rules this module obeys:

* A worker's clock counts the steps of it that are known here. The slowest is the least clock of those
  that are there; who leaves is none of them any more, who joins stands where the slowest does.
* Every operation costs as much as it frees: O(1) for a push that changes nothing.

Source: Ho et al. 2013, section 2.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

__all__ = ["Gate"]


class Gate:
    """The workers' clocks, and whose replies are withheld: who is more than ``s`` ahead of the slowest."""

    timed: ClassVar[bool] = False
    """Whether it is to be told when gradients come and replies go."""

    def __init__(self, workers: int, s: float) -> None:
        self.s = s
        self.clock = dict.fromkeys(range(workers), 0)
        self.slowest = 0
        self._at = Counter({0: workers})
        self._withheld: dict[int, None] = {}

    def push(self, rank: int, clock: int, now: float) -> list[int]:
        """Worker ``rank`` has completed ``clock`` steps and wants a reply; who gets one now, in order."""
        if rank in self.clock:
            self._at[self.clock[rank]] -= 1
        self.clock[rank] = clock
        self._at[clock] += 1
        self._withheld[rank] = None
        moved = self._advance()
        self.judge(rank, now)
        return self._release(tuple(self._withheld) if moved else (rank,))

    def leave(self, rank: int) -> list[int]:
        """Worker ``rank`` waits for nothing any more, and nobody for it; who gets a reply now."""
        if rank not in self.clock:
            return []
        self._at[self.clock.pop(rank)] -= 1
        self._withheld.pop(rank, None)
        return self._release(tuple(self._withheld)) if self._advance() else []

    def join(self, rank: int) -> list[int]:
        """Worker ``rank`` is there (again) and stands where the slowest does; who gets a reply now."""
        free = self.leave(rank)
        self.clock[rank] = self.slowest
        self._at[self.slowest] += 1
        return free

    def judge(self, rank: int, now: float) -> None:
        """Worker ``rank`` has pushed: a gate that changes its threshold does so here."""

    def answered(self, ranks: list[int], now: float) -> None:
        """Replies to ``ranks`` have been handed over."""

    def admits(self, rank: int) -> bool:
        """Whether worker ``rank`` may begin its next step."""
        return self.clock[rank] - self.slowest <= self.s

    def _advance(self) -> bool:
        """Find the slowest clock; says whether it has changed, which alone can free others."""
        before = self.slowest
        while self.clock and not self._at[self.slowest]:
            del self._at[self.slowest]
            self.slowest += 1
        return self.slowest > before

    def _release(self, candidates: tuple[int, ...]) -> list[int]:
        free = [rank for rank in candidates if self.admits(rank)]
        for rank in free:
            del self._withheld[rank]
        return free
