"""Errors of the simulator."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import Diverged

__all__ = ["Deadlock", "Diverged"]


class Deadlock(RuntimeError):
    """Nothing can happen any more, yet programs wait. ``waiting`` says who waits for what."""

    def __init__(self, now: float, waiting: Sequence[str]) -> None:
        self.now, self.waiting = now, tuple(waiting)
        lines = "".join(f"\n  {line}" for line in self.waiting)
        super().__init__(f"deadlock at {now:.9g} s: no event is left, but{lines}")
