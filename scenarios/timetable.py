"""Timetable: a scenario's faults as a sequence of events, scheduled ones and those by rate.

Rules this module obeys:

* Nothing here depends on a driver: the same scenario and seed give the same times to both.
* Crashes and leaves by rate are Poisson processes, one per node and kind, with streams of their own; an
  event that finds nobody there does nothing, which changes no later one. Who joins by rate is away for an
  exponential time: from the start, or from when it has gone.
* A rank that nothing happens to costs one number, not an object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

import numpy as np

from scenarios.faults import Fault
from scenarios.streams import RUN, stream

__all__ = ["Event", "Timetable"]

ARRIVALS = ("join", "back")


class Event(NamedTuple):
    """``kind`` befalls ``node`` at ``time`` seconds: crash | leave | join | back | freeze | cut, or what a
    driver makes of these.

    back   seconds after which it comes back, or goes on, or None
    fault  index of the fault that says so
    """

    time: float
    kind: str
    node: int
    back: float | None
    fault: int


class Timetable:
    """The events of ``faults`` on a cluster of so many ``workers``; servers are nodes from there on.

    by_step  by rank: (steps completed, kind, back, fault), the next one last
    coming   arrivals that are still to come: of workers, and of servers that have crashed
    """

    def __init__(self, faults: Sequence[Fault], workers: int, seed: int) -> None:
        self._faults, self._workers, self._seed = faults, workers, seed
        self._heap: list[tuple[float, int, Event]] = []
        self._sequence = self.coming = 0
        self._first: list[tuple[int, str, np.ndarray, np.ndarray]] = []
        self._drawn: dict[tuple[int, str, int], int] = defaultdict(int)
        self.by_step: dict[int, list[tuple[int, str, float | None, int]]] = defaultdict(list)
        for i, fault in enumerate(faults):
            nodes = (*fault.ranks, *(workers + server for server in fault.servers))
            if fault.kind == "churn":
                self._draw_first(i, fault, nodes or range(workers))
            for node in nodes if fault.kind != "churn" else ():
                if fault.step is not None:
                    self.by_step[node].append((fault.step, fault.kind, fault.back, i))
                elif fault.at is not None:
                    self.add(Event(fault.at, fault.kind, node, fault.back, i))
        for due in self.by_step.values():
            due.sort(key=lambda entry: entry[0], reverse=True)

    def _draw_first(self, index: int, fault: Fault, nodes: Sequence[int]) -> None:
        """First times by rate of all nodes: the stream's value at a node's place is its own."""
        for kind in ("join",) if fault.arrivals else ("crash", "leave"):
            often = getattr(fault, kind)
            if often:
                ids = np.asarray(nodes)
                rng = stream(self._seed, RUN, f"faults.{index}.{kind}")
                times = (fault.at or 0.0) + rng.exponential(1 / often, int(ids.max()) + 1)[ids]
                order = np.argsort(times, kind="stable")[::-1]
                self._first.append((index, kind, times[order], ids[order]))
                self.coming += int((ids < self._workers).sum()) if kind in ARRIVALS else 0

    def add(self, event: Event) -> None:
        """One more event."""
        self._sequence += 1
        self.coming += self._arrives(event)
        heappush(self._heap, (event.time, self._sequence, event))

    def _arrives(self, event: Event) -> bool:
        """Whether it brings somebody without whom others may wait in vain."""
        return event.kind == "back" or (event.kind == "join" and event.node < self._workers)

    @property
    def next(self) -> float:
        """Seconds at which the next event is; infinity if none is left."""
        first = min((float(times[-1]) for _, _, times, _ in self._first if len(times)), default=inf)
        return min(first, self._heap[0][0] if self._heap else inf)

    def pop(self) -> Event:
        """The next event, taken out; the one that follows it by rate is drawn."""
        for place, (index, kind, times, ids) in enumerate(self._first):
            if len(times) and times[-1] == self.next:
                self._first[place] = (index, kind, times[:-1], ids[:-1])
                event = Event(float(times[-1]), kind, int(ids[-1]), None, index)
                if kind in ARRIVALS:
                    self.coming -= self._arrives(event)
                    return event
                event = event._replace(back=self._away(event))
                self._renew(event)
                return event
        _, _, event = heappop(self._heap)
        self.coming -= self._arrives(event)
        if event.kind in ("crash", "leave") and self._faults[event.fault].kind == "churn":
            self._renew(event)
        return event

    def _renew(self, event: Event) -> None:
        """The same again, one exponential time later."""
        wait = self._draw(event, event.kind)
        self.add(event._replace(time=event.time + wait, back=self._away(event)))

    def _away(self, event: Event) -> float | None:
        """Seconds after which it comes back, if it does."""
        fault = self._faults[event.fault]
        return self._draw(event, "join") if fault.join else fault.back

    def _draw(self, event: Event, kind: str) -> float:
        """The next exponential time of its node, at the rate of ``kind``."""
        key = (event.fault, kind, event.node)
        self._drawn[key] += 1
        rng = stream(self._seed, event.node, f"faults.{event.fault}.{kind}", self._drawn[key])
        return float(rng.exponential(1 / getattr(self._faults[event.fault], kind)))
