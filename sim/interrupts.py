"""Ending a simulation before its end, from outside.

Rules this module obeys:

* A run ends when a worker is about to begin a step, or, where steps last long, between two events: nothing
  is half done then. Whoever wants it to end only says so, which a signal handler may.
* What was recorded by then is kept, and says that it is not complete.
"""

from __future__ import annotations

from core.record import Record

__all__ = ["Interrupted", "Stop"]


class Stop:
    """Set ``asked`` to end the simulation that it was given to, at its next step or soon after."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        self.asked = False


class Interrupted(KeyboardInterrupt):
    """The simulation was stopped from outside; ``record`` holds what was recorded by then."""

    def __init__(self, now: float, steps: int) -> None:
        super().__init__(f"stopped {now:.6g} simulated seconds after the start, {steps:,} steps begun")
        self.record: Record | None = None
