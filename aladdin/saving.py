"""When a simulation's checkpoints are taken, and what Ctrl-C does to one: it saves, or keeps what there is.

Rules this module obeys:

* Ctrl-C is only noted; the simulation saves when a worker begins its next step, or keeps its record then or
  between two events, where nothing is half done, and ends there. A second one ends it at once, and keeps
  nothing.
* Signals are handled in the main thread only; elsewhere Ctrl-C is not ours. Without checkpoints it is not
  either where it has another meaning already.
* Where Ctrl-C is ignored it still is; the command line calls its handler for other signals, too.
* Importing this costs nothing: the command line does so for its help.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.checkpoint import Checkpoints
    from sim.interrupts import Stop

__all__ = ["EVERY", "stopping", "taking"]

EVERY = "5 min"
"""Between two checkpoints, if nothing else is said."""


@contextmanager
def taking(
    path: str | Path | None, every: str | float = EVERY, told: Callable[[str], None] | None = None
) -> Iterator[Checkpoints | None]:
    """Checkpoints at ``path`` after ``every`` so long (seconds, or text with a unit); None without a path.

    ``told`` is called with how far the run had come, in words, where it goes on from there.
    Raises ``ScenarioError`` for an ``every`` that is no time above 0.
    """
    from scenarios.errors import ScenarioError
    from scenarios.units import quantity

    seconds = quantity(every, "seconds", "every")
    if not seconds > 0:
        raise ScenarioError("every", every, "a time above 0, such as '5 min'")
    if path is None:
        yield None
        return
    from sim.checkpoint import Checkpoints

    last, stopped = time.monotonic(), False

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds:
            return False
        last = now
        return True

    def stop(number: int, _: Any) -> None:
        nonlocal stopped
        if _ignored(number, before):
            return
        if stopped:
            raise KeyboardInterrupt
        stopped = True

    ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if ours:
        signal.signal(signal.SIGINT, stop)
    try:
        yield Checkpoints(path, due=due, stop=lambda: stopped, told=told or (lambda _: None))
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


@contextmanager
def stopping() -> Iterator[Stop]:
    """While inside, Ctrl-C asks the simulation that is given this to end."""
    from sim.interrupts import Stop

    asking = Stop()

    def ask(number: int, _: Any) -> None:
        if _ignored(number, before):
            return
        if asking.asked:
            raise KeyboardInterrupt
        asking.asked = True

    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread()
    if not ours or before not in (signal.default_int_handler, signal.SIG_IGN):
        yield asking
        return
    signal.signal(signal.SIGINT, ask)
    try:
        yield asking
    finally:
        signal.signal(signal.SIGINT, before)


def _ignored(number: int, before: Any) -> bool:
    """Whether a signal is Ctrl-C, and was ignored by the handler before ours."""
    return number == signal.SIGINT and before is signal.SIG_IGN
