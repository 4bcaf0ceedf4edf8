"""Ctrl-C at a time of one's own choosing.

Rules this module obeys:

* A signal that comes while ``deferred`` is remembered, not lost.
* Where Ctrl-C has another meaning here (a handler of the caller's, or a thread that never gets it) nothing is
  changed. Where it is ignored it still is; the command line calls its handler for other signals, too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Interrupts", "deferred"]


class Interrupts:
    """How often Ctrl-C was pressed so far."""

    def __init__(self) -> None:
        self.count = 0

    def check(self, most: int = 0) -> None:
        """Raise ``KeyboardInterrupt`` where Ctrl-C was pressed more than ``most`` times."""
        if self.count > most:
            raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[Interrupts]:
    """While inside, Ctrl-C only counts; who is inside calls ``check`` where it may be interrupted."""
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread()
    if not ours or before not in (signal.default_int_handler, signal.SIG_IGN):
        yield interrupts
        return

    def count(number: int, _: object) -> None:
        if number != signal.SIGINT or before is not signal.SIG_IGN:
            interrupts.count += 1

    signal.signal(signal.SIGINT, count)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
