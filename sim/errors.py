"""Errors of the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.errors import Diverged

__all__ = ["Deadlock", "Diverged", "ServerLost"]


class Deadlock(RuntimeError):
    """Nothing can happen any more, yet programs wait. ``waiting`` says who waits for what."""

    def __init__(self, now: float, waiting: Sequence[str]) -> None:
        self.now, self.waiting = now, tuple(waiting)
        lines = "".join(f"\n  {line}" for line in self.waiting)
        super().__init__(f"deadlock at {now:.9g} s: no event is left, but{lines}")


class ServerLost(Deadlock):
    """A server has died for good, and with it its slice of the model: nobody can go on.

    silent: seconds for which it had not been heard of when it was taken for dead; 0: it crashed.
    ``record`` holds what was recorded until then.
    """

    def __init__(self, now: float, server: int, node: int, silent: float = 0.0) -> None:
        self.now, self.waiting = now, ()
        self.record: Any = None
        who, how = f"server {server} (node {node})", f"died at {now:.9g} s and does not come back"
        mend = "faults: give it a time to come 'back' after"
        if silent:
            how = (
                f"was silent for {silent:.9g} s (run.heartbeat_timeout) and is taken for dead at {now:.9g} s"
            )
            mend = "faults: a shorter 'back', or a longer run.heartbeat_timeout"
        lost = "its slice of the model is lost, and no worker can go on"
        RuntimeError.__init__(self, f"{who} {how}: {lost} ({mend})")
