"""How long steps take when several workers share a device.

Rules this module obeys:

* A device serves ``slots`` workers at full speed; with k > slots of them computing, each runs at
  slots / k (processor sharing). Every step that starts or ends changes the others' speed at once.
* What is shared is the step's base time. A slow-down (factor > 1) is time that the worker loses
  beside the device, so many times what the step took on it, as the real driver injects it; a
  speed-up shortens the work itself.
* Who dies keeps no device busy: its work is taken off.
* Workers fill devices in order of rank. Without sharing no device is involved at all.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf

from sim.alarm import Alarm
from sim.clock import Clock

__all__ = ["Device", "devices"]


class Device(Alarm):
    """One device by virtual time: ``served`` is the full-speed seconds that each worker has received."""

    __slots__ = ("_clock", "_due", "_heap", "_rate", "_sequence", "_served", "_since", "_slots")

    def __init__(self, clock: Clock, slots: float) -> None:
        self._clock, self._slots = clock, slots
        self._heap: list[tuple[float, int, float, float, Alarm]] = []
        self._rate = self._served = self._since = 0.0
        self._sequence = 0
        self._due = inf

    def run(self, alarm: Alarm, base: float, factor: float) -> None:
        """Fire ``alarm`` when ``base`` seconds of work are done and slowed down by ``factor``."""
        self._advance()
        self._sequence += 1
        key = self._served + base * min(factor, 1.0)
        lost = max(factor - 1.0, 0.0)
        heappush(self._heap, (key, self._sequence, self._clock._now, lost, alarm))
        self._schedule()

    def cancel(self, alarm: Alarm) -> float:
        """Take off what was to fire ``alarm``, and never will; seconds of work it had left, 0 if none."""
        heap = self._heap
        found = [entry for entry in heap if entry[4] is alarm]
        if not found:
            return 0.0
        self._advance()
        left = 0.0
        for entry in found:
            heap.remove(entry)
            left += max(entry[0] - self._served, 0.0)
        heapify(heap)
        self._schedule()
        return left

    @property
    def work(self) -> list[Alarm]:
        """What it works for."""
        return [alarm for *_, alarm in self._heap]

    def _advance(self) -> None:
        now = self._clock._now
        self._served = self._served + self._rate * (now - self._since) if self._heap else 0.0
        self._since = now

    def _schedule(self) -> None:
        if not self._heap:
            self._due = inf
            return
        self._rate = min(1.0, self._slots / len(self._heap))
        self._due = self._clock._now + max(self._heap[0][0] - self._served, 0.0) / self._rate
        self._clock.at(self._due, self)

    def fire(self) -> None:
        """The first of the steps is done, unless that has changed since."""
        now = self._clock._now
        if now != self._due:
            return
        heap = self._heap
        self._served, self._since = heap[0][0], now
        while heap and heap[0][0] <= self._served:
            _, _, began, lost, alarm = heappop(heap)
            self._clock.at(now + lost * (now - began), alarm)
        self._schedule()


def devices(clock: Clock, workers: int, per_device: int, slots: float) -> list[Device | None]:
    """The device of every worker; ``None`` where each has one of its own."""
    if per_device == 1:
        return [None] * workers
    made = [Device(clock, slots) for _ in range(-(-workers // per_device))]
    return [made[rank // per_device] for rank in range(workers)]
