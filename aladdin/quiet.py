"""How busy the machine is with other programs: what a measurement should know of its neighbours.

Rules this module obeys:

* It looks while nothing of ours runs, and at what a virtual machine's host kept for others while something
  did (``real.stolen``). What it finds is told, never corrected for.
* Where the system does not say (no ``/proc/stat``), nothing is known, and nothing is claimed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from core.record import Record

__all__ = ["NOISY", "STOLEN", "busy", "stolen", "word"]

NOISY = 0.25
"""Cores of other programs from which a measurement says so."""

STOLEN = 0.05
"""Share of the cores that the host may keep for others while something is measured."""

_TICKS = 100.0
_STAT = Path("/proc/stat")


def busy(seconds: float = 0.3) -> float | None:
    """Cores that were in use, or stolen by the host, during the next ``seconds``; None where unknown."""
    before = _used()
    begun = time.perf_counter()
    time.sleep(seconds)
    after = _used()
    if before is None or after is None:
        return None
    return max(0.0, (after - before) / (time.perf_counter() - begun))


def word(cores: float | None) -> str:
    """A flag for a measurement beside other programs; empty where they hardly matter."""
    if cores is None or cores < NOISY:
        return ""
    return f"other programs kept {cores:.1f} cores busy just before it was measured"


def stolen(records: Sequence[Record]) -> float:
    """The largest share of the cores that was kept from any of the runs, as far as it is known."""
    known = (record.manifest.get("environment", {}).get("stolen") for record in records)
    return max((share for share in known if share is not None), default=0.0)


def _used() -> float | None:
    """Core seconds that were not idle since the machine started."""
    try:
        fields = _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = map(float, fields)
    return (user + nice + system + interrupts + soft + stolen) / _TICKS
