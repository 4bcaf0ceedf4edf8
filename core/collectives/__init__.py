"""All-reduce: schedules (who sends what to whom), the program that performs them, and its agreement.

``agreement`` is the program that drivers run for ``AllReduce`` and how it survives departures,
``exchange`` performs one schedule, ``schedules`` and ``trees`` hold the schedules, which the closed forms
read as well.
"""

from __future__ import annotations

from core.collectives.agreement import all_reduce, completed, renew, rounds
from core.collectives.exchange import CHOICE, schedule_of
from core.collectives.schedules import ALGORITHMS, Choice, ring_steps

__all__ = [
    "ALGORITHMS", "CHOICE", "Choice",
    "all_reduce", "completed", "renew", "ring_steps", "rounds", "schedule_of",
]  # fmt: skip
