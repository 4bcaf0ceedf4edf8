"""Virtual time: SimPy's event queue with events light enough for millions of them.

Rules this module obeys:

* Time, queue and event order are SimPy's: (time, priority, sequence). A run is deterministic
  because all three are.
* What is scheduled here is an ``Alarm`` (``sim.alarm``). Ordinary SimPy events and processes still work
  on a ``Clock``; they only cost what they cost in SimPy.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import repeat
from typing import Any

import simpy

from sim.alarm import NORMAL, Alarm

__all__ = ["BEAT", "Clock"]

BEAT = 16_384
"""Events after which whoever watches is told; a tenth of a second or so."""


class Clock(simpy.Environment):
    """A SimPy environment that fires alarms directly."""

    def at(self, time: float, alarm: Alarm, priority: int = NORMAL) -> None:
        """Let ``alarm`` fire at ``time`` (absolute seconds; never before now).

        The hottest callers push onto ``_queue`` themselves, in just this form.
        """
        queue: list[Any] = self._queue
        heappush(queue, (time, priority, next(self._eid), alarm))

    def step(self) -> None:
        """One event, as in SimPy; an alarm is fired directly."""
        queue: list[Any] = self._queue
        if queue and isinstance(queue[0][3], Alarm):
            self._now, _, _, alarm = heappop(queue)
            alarm.fire()
        else:
            super().step()

    def drain(self, beat: Callable[[], None] | None = None) -> None:
        """Fire alarms until none is left; the clock's only loop in a simulation.

        ``beat`` is called between two of them after every ``BEAT``; what it raises ends the loop.
        """
        queue: list[Any] = self._queue
        while queue:
            for _ in repeat(None, BEAT):
                self._now, _, _, alarm = heappop(queue)
                alarm.fire()
                if not queue:
                    return
            if beat is not None:
                beat()
