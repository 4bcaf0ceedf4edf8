"""Where a node's time goes: every second of its main program is booked to exactly one part.

Rules this module obeys:

* A blocked stretch is split after the fact, by what was moving: receive where awaited bytes moved
  in, else send where the node's own bytes moved out, else wait. The rest of the time the program
  ran: update (tensor work, and the program's own few microseconds).
* Rows follow ``core.record``: a worker's row spans from one ``Compute`` to the next.
* While a gradient is produced piece by piece (until ``computing``), all time is compute.
* A server has no rows; what would be wait is idle for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.record import KINDS, PARTS, SPAN_COLUMNS, STEP_COLUMNS, StepLog
from real.mailbox import Motion, Traffic

__all__ = ["Booker"]

_COMPUTE, _UPDATE, _SEND, _WAIT, _RECEIVE, _IDLE = range(len(PARTS))

Intervals = list[tuple[float, float]]


class Booker:
    """Books one node's main program. Times are monotonic; ``zero`` is the run's start, ``mark`` the
    instant up to which everything is booked."""

    def __init__(self, node: int, *, server: bool, spans: bool) -> None:
        self.node, self.server = node, server
        self.zero = 0.0
        self.parts = [0.0] * len(PARTS)
        self.rows = StepLog(STEP_COLUMNS)
        self.spans = StepLog(SPAN_COLUMNS) if spans else None
        self.joins: list[tuple[int, int, float, float]] = []
        self.start = self.end = 0.0
        self.mark = self.computing = 0.0
        self._row: tuple[int, float, list[float], int] | None = None

    def begin(self, now: float) -> None:
        """The program starts."""
        self.mark = now

    def row(self, step: int, now: float, blends: int) -> None:
        """Step ``step`` begins with a ``Compute``; the row before it is complete."""
        self.active(now)
        self._close(now, blends)
        self._row = (step, now, list(self.parts), blends)

    def finish(self, now: float, blends: int) -> None:
        """The program has ended."""
        self.active(now)
        self._close(now, blends)
        self.end = now

    def active(self, now: float) -> None:
        """The program ran from the last booked instant until ``now``."""
        self._book(_UPDATE, self.mark, now)
        self.mark = max(self.mark, now)

    def compute(self, now: float) -> None:
        """It waited for its gradient until ``now``."""
        self._book(_COMPUTE, self.mark, now)
        self.mark = max(self.mark, now)

    def reduce(self, rounds: int, now: float) -> None:
        """It was in native all-reduce number ``rounds``: receive for now, split once all joins are known."""
        began = min(max(self.mark, self.computing), now)
        self.joins.append((rounds, len(self.rows), began - self.zero, now - self.zero))
        self._book(_RECEIVE, self.mark, now)
        self.mark = max(self.mark, now)

    def blocked(self, now: float, coming: Traffic, going: Traffic, awaited: Sequence[Motion]) -> None:
        """It was blocked until ``now``, awaiting the transfers ``awaited`` (none where it sent)."""
        start = self.mark
        receiving = coming.spans(start, now, awaited)
        sending = _without(going.spans(start, now), receiving)
        resting = _without([(start, now)], sorted(receiving + sending))
        for part, intervals in (
            (_RECEIVE, receiving),
            (_SEND, sending),
            (_IDLE if self.server else _WAIT, resting),
        ):
            for a, b in intervals:
                self._book(part, a, b)
        self.mark = max(self.mark, now)
        coming.forget(now)
        going.forget(now)

    def transfer(self, start: float, end: float) -> None:
        """A message of this node moved out; for the timeline."""
        if self.spans is not None:
            self.spans.append((self.node, KINDS.index("transfer"), start - self.zero, end - self.zero))

    def _book(self, part: int, start: float, end: float) -> None:
        if part != _COMPUTE and start < self.computing:
            covered = min(end, self.computing)
            self._book(_COMPUTE, start, covered)
            start = covered
        if end > start:
            self.parts[part] += end - start
            if self.spans is not None:
                self.spans.append((self.node, part, start - self.zero, end - self.zero))

    def _close(self, now: float, blends: int) -> None:
        if self._row is not None:
            step, start, before, blends_before = self._row
            spent = [after - b for after, b in zip(self.parts, before, strict=True)]
            begin, end = start - self.zero, now - self.zero
            self.rows.append((self.node, step, begin, end, *spent[:-1], blends - blends_before))
            self._row = None


def _without(intervals: Intervals, holes: Intervals) -> Intervals:
    """``intervals`` less ``holes``; both disjoint and rising."""
    rest: Intervals = []
    for a, b in intervals:
        for c, d in holes:
            if d <= a or c >= b:
                continue
            if c > a:
                rest.append((a, c))
            a = max(a, d)
        if b > a:
            rest.append((a, b))
    return rest
