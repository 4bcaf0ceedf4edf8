"""DSSP: SSP whose threshold is set while running (Zhao et al. 2019, Algorithms 1 and 2).

    worker i   as under SSP            server, on the gradient of worker p
                                       1  x~ <- x~ - (eta / n) g_p;  c_p <- c_p + 1
                                       2  if c_p - min c <= s_L:  T_p <- s_L
                                       3  else if c_p - min c > T_p, and p is the fastest:
                                       4     r <- the fewest extra steps after which p need not wait
                                       5     T_p <- min(c_p - min c - 1 + r, s_U)
                                       6  reply to every waiting j with c_j - min c <= T_j

The forecast (line 4) extrapolates from the latest two events of each worker that the server has
seen: with I a worker's last interval, the slowest pushes next at t = push + I_slow (of several
slowest ones the last counts; one that is overdue is expected at once), and p after r more steps at
now + r I_p; so r = (t - now) / I_p, rounded up, at most s_U - s_L. Without two events nothing is known,
and p waits as under SSP(s_L).

Three departures from the published pseudo-code, each of which keeps its aim:

* The total is capped at s_U (line 5); published, the reply that brings a grant does not count
  against it, so the bound can be missed by one, and a new grant can follow on an old one.
* A worker's interval runs from the server's last reply to its push, not from push to push: seconds
  for which the server itself withheld the reply say nothing about the worker's speed.
* Waits that are over before p is there again cost nothing, so the search through a table of
  simulated pushes for the pair nearest to each other is replaced by the quotient above; and who has
  used up its extra steps waits for the slowest's next push, which is what the forecast is of,
  instead of for as many pushes as lead back to s_L.

Every shard forecasts alone. Invariants: those of SSP(s_U); s_L = s_U is SSP(s_L), event for event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from core.algorithms.asp import ASP
from core.algorithms.ssp import serve
from core.errors import is_whole, require
from core.gate import Gate
from core.node import Node, Program

__all__ = ["DSSP", "ForecastingGate"]


class ForecastingGate(Gate):
    """A gate with a threshold of its own for every worker, between ``low`` and ``high``."""

    timed: ClassVar[bool] = True

    def __init__(self, workers: int, low: int, high: int) -> None:
        super().__init__(workers, high)
        self.low, self.high = low, high
        self._threshold: dict[int, int] = {}
        self._answered = dict.fromkeys(range(workers), 0.0)
        self._pushed: dict[int, tuple[float, float]] = {}

    def join(self, rank: int) -> list[int]:
        self._pushed.pop(rank, None)
        return super().join(rank)

    def judge(self, rank: int, now: float) -> None:
        self._pushed[rank] = (now, now - self._answered.get(rank, now))
        ahead, threshold = self.clock[rank] - self.slowest, self._threshold.setdefault(rank, self.low)
        if ahead <= self.low:
            self._threshold[rank] = self.low
        elif threshold < min(ahead, self.high) and self.clock[rank] == max(self.clock.values()):
            self._threshold[rank] = min(ahead - 1 + self.extra(rank), self.high)

    def answered(self, ranks: list[int], now: float) -> None:
        self._answered.update(dict.fromkeys(ranks, now))

    def admits(self, rank: int) -> bool:
        return self.clock[rank] - self.slowest <= self._threshold[rank]

    def extra(self, rank: int) -> int:
        """Steps that worker ``rank``, which has just pushed, had best do before it waits; r above."""
        slowest = [self._pushed.get(other) for other, clock in self.clock.items() if clock == self.slowest]
        now, interval = self._pushed[rank]
        most, wait = self.high - self.low, 0.0
        for last in slowest:
            if last is None:
                return 0
            wait = max(wait, sum(last) - now)
        return most if wait > interval * most else ceil(wait / interval) if wait else 0


@dataclass(frozen=True)
class DSSP:
    """SSP with a threshold between ``s_l`` and ``s_u`` that follows the workers' speeds."""

    name: ClassVar[str] = "dssp"
    title: ClassVar[str] = "DSSP (SSP with a dynamic threshold)"
    centralized: ClassVar[bool] = True
    collective: ClassVar[bool] = False
    joins: ClassVar[bool] = True

    s_l: int = 3
    s_u: int = 15

    def __post_init__(self) -> None:
        require("s_l", self.s_l, is_whole(self.s_l) and self.s_l >= 0, "a whole number of at least 0")
        valid = f"a whole number of at least s_l, {self.s_l}"
        require("s_u", self.s_u, is_whole(self.s_u) and self.s_u >= self.s_l, valid)

    def worker(self, node: Node) -> Program:
        return ASP().worker(node)

    def server(self, node: Node) -> Program:
        return serve(node, ForecastingGate(node.workers, self.s_l, self.s_u))

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
