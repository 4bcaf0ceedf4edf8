"""What happens at a time: an object that carries its own state and says in ``fire`` what happens.

Rules this module obeys:

* No callback lists, no closures: an alarm stands in the clock's queue itself.
* Stale alarms are not removed from the queue. Whoever fires checks whether it is still meant.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

__all__ = ["LATE", "NORMAL", "Alarm"]

NORMAL, LATE = 1, 2
"""Priorities: LATE fires after everything else of the same instant."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Alarm:
    """Something that happens at a time; ``fire`` is called when it has come."""

    __slots__ = ()

    def fire(self) -> None:
        """The time has come."""
        raise NotImplementedError
