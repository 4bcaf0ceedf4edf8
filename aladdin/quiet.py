"""How busy the machine is with other programs: what a measurement should know of its neighbours.

Rules this module obeys:

* It looks while nothing of ours runs, and at what a virtual machine's host kept for others while something
  did (``scenarios.hardware.Stolen``). What it finds is told, never corrected for.
* Where the system does not say (no ``/proc/stat``), nothing is known, and nothing is claimed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from core.record import Record
from scenarios.hardware import processor_time

__all__ = ["NOISY", "STOLEN", "busy", "kept_back", "least", "stolen", "too_much", "word"]

NOISY = 0.25
"""Cores of other programs from which a measurement says so."""

STOLEN = 0.05
"""Share of the cores asked for, beyond the usual, that the host may keep while something is measured."""

_PROC = Path("/proc")


def busy(seconds: float = 0.3) -> float | None:
    """Cores that were in use, or stolen by the host, during the next ``seconds``; None where unknown."""
    before = _used()
    begun = time.perf_counter()
    time.sleep(seconds)
    after = _used()
    if before is None or after is None:
        return None
    return max(0.0, (after - before) / (time.perf_counter() - begun))


def word(cores: float | None, kept: float | None = None) -> str:
    """A flag for a measurement beside other programs or a busy host; empty where they hardly matter."""
    words = []
    if cores is not None and cores >= NOISY:
        words.append(f"other programs kept {cores:.1f} cores busy just before it was measured")
    if kept is not None and kept > STOLEN:
        words.append(kept_back(f"{kept:.0%}"))
    return "; ".join(words)


def kept_back(much: str) -> str:
    """Why a measurement is to be doubted whose machine's host kept so ``much`` of the cores."""
    return f"the machine's host kept {much} of the cores that were asked for"


def stolen(records: Sequence[Record]) -> float | None:
    """The largest share of the cores asked for that was kept from any of the runs; None where none says."""
    known = (record.manifest.get("environment", {}).get("stolen") for record in records)
    return max((share for share in known if share is not None), default=None)


def least(shares: Iterable[Sequence[float | None]]) -> list[float]:
    """The least share that was kept from each probe, as far as it is known."""
    known = [[one for one in own if one is not None] for own in shares]
    return [min(own) for own in known if own]


def too_much(share: float | None, all_shares: Iterable[float | None]) -> bool:
    """Whether ``share`` is unusual: what a quarter of the known ``all_shares`` do not exceed is usual."""
    known = sorted(one for one in all_shares if one is not None)
    return share is not None and bool(known) and share > known[(len(known) - 1) // 4] + STOLEN


def _used() -> float | None:
    """Core seconds that were used or stolen since the machine started."""
    found = processor_time(_PROC)
    return None if found is None else sum(found)
