"""How long work takes when several share what does it: workers a device, or all nodes one host.

Rules this module obeys:

* A device serves ``slots`` workers at full speed; with k > slots of them computing, each runs at
  slots / k (processor sharing). Every step that starts or ends changes the others' speed at once.
* What is shared is the step's base time. A slow-down (factor > 1) is time that the worker loses
  beside the device, so many times what the step took on it, as the real driver injects it; a
  speed-up shortens the work itself.
* Workers fill devices in order of rank. Without sharing no device is involved at all.
* A host that plays all nodes (``cluster.host``) is one device with its cores as slots. A job that keeps
  several cores busy weighs as much as so many steps; what moves at a fixed pace, whoever else is
  there, is a background load. It comes in bursts that ask for ``ENDS`` slots at once, a message being
  moved by both of its ends: a burst's share is a job's, and between bursts the jobs have all.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import Protocol

from sim.clock import Alarm, Clock

__all__ = ["Computing", "Device", "Nobody", "devices"]

ENDS = 2.0
"""Slots that a burst of the background load asks for: the sender's and the receiver's."""


class Computing(Protocol):
    """What runs on a device: told when its work is done."""

    def fire(self) -> None: ...


class Device(Alarm):
    """One device by virtual time: ``served`` is the full-speed seconds that each worker has received."""

    __slots__ = (
        "_background", "_clock", "_due", "_heap", "_rate", "_sequence", "_served", "_since", "_slots",
        "_weight",
    )  # fmt: skip

    def __init__(self, clock: Clock, slots: float) -> None:
        self._clock, self._slots = clock, slots
        self._heap: list[tuple[float, int, float, float, float, Alarm]] = []
        self._rate = self._served = self._since = 0.0
        self._weight = self._background = 0.0
        self._sequence = 0
        self._due = inf

    def run(self, alarm: Alarm, base: float, factor: float, weight: float = 1.0) -> None:
        """Fire ``alarm`` when ``base`` seconds of work are done and slowed down by ``factor``.

        ``weight`` is the number of slots that the work keeps busy when it has the device to itself.
        """
        self._advance()
        self._sequence += 1
        self._weight += weight
        key = self._served + base * min(factor, 1.0)
        lost = max(factor - 1.0, 0.0)
        heappush(self._heap, (key, self._sequence, self._clock._now, lost, weight, alarm))
        self._schedule()

    def load(self, slots: float) -> None:
        """From now on ``slots`` more (or, if negative, fewer) are busy with what keeps its own pace."""
        self._advance()
        self._background += slots
        self._schedule()

    def _advance(self) -> None:
        now = self._clock._now
        self._served = self._served + self._rate * (now - self._since) if self._heap else 0.0
        self._since = now

    def _schedule(self) -> None:
        if not self._heap:
            self._due = inf
            return
        self._rate = self._share()
        self._due = self._clock._now + max(self._heap[0][0] - self._served, 0.0) / self._rate
        self._clock.at(self._due, self)

    def _share(self) -> float:
        """Slots that a job of weight 1 gets, bursts of the background load and pauses between them taken."""
        alone = min(1.0, self._slots / self._weight)
        if not self._background:
            return alone
        beside = min(1.0, self._slots / (self._weight + ENDS))
        bursting = min(self._background / (ENDS * beside), 1.0)
        return alone + bursting * (beside - alone)

    def fire(self) -> None:
        """The first of the steps is done, unless that has changed since."""
        now = self._clock._now
        if now != self._due:
            return
        heap = self._heap
        self._served, self._since = heap[0][0], now
        while heap and heap[0][0] <= self._served:
            _, _, began, lost, weight, alarm = heappop(heap)
            self._weight = self._weight - weight if heap else 0.0
            self._clock.at(now + lost * (now - began), alarm)
        self._schedule()


class Nobody(Alarm):
    """Work whose end concerns nobody."""

    __slots__ = ()

    def fire(self) -> None:
        """Done."""


def devices(clock: Clock, workers: int, per_device: int, slots: float) -> list[Device | None]:
    """The device of every worker; ``None`` where each has one of its own."""
    if per_device == 1:
        return [None] * workers
    made = [Device(clock, slots) for _ in range(-(-workers // per_device))]
    return [made[rank // per_device] for rank in range(workers)]
