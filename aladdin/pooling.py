"""What a machine is taken to be, of all that several probes of one workload have said of it.

Rules this module obeys:

* What drifts is taken from the latest probes, what scatters from all: which is which was measured, by
  probes of hours (docs/decisions.md).
* A constant that was not probed anew is no further measurement of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

from analysis.calibrate import at_most
from analysis.repetitions import merged, middle
from scenarios.profile import Constant, Profile

__all__ = ["DRIFTING", "LATEST", "anew", "pooled"]

_SMALL = r"step_time\.cold|device\..*|host\..*\.beside.*"
"""Constants that are small differences of step times, or ratios: they scatter more than they drift."""

DRIFTING = r"step_time\.(mean|spread)"
"""How long native steps take: that drifts within minutes, and scatters within seconds."""

_CLOCKED = r"host\..*\.beside\.(\d+)"
"""Those that are read off clocks where so many keep all cores busy: they drift, and scatter little."""

_OF_LINKS = r"link\.native\..*|host\.native\.byte_cost"
"""Those of native links, which scatter by half within seconds and drift by less."""

LATEST = 12
"""Probes of what drifts that count: those of the last minutes."""


def anew(fresh: Profile, calibrated: Profile) -> dict[str, Constant]:
    """The constants of ``fresh`` not taken over from ``calibrated``, even if equal to those there."""
    return {k: c for k, c in fresh.constants.items() if c is not calibrated.constants.get(k)}


def pooled(profiles: Sequence[Profile]) -> Profile:
    """The last of several profiles of one workload, with what scatters taken from all of them.

    What messages and pauses cost steps is a small difference of large times: a single short probe says
    little of it, and the machine changes it less than probes scatter. How long steps take does drift, but two
    probes of seconds scatter as much as it drifts in minutes: the last ``LATEST`` count. So it is with native
    links, and with what messages take from steps where no core is idle. What a profile only has from the
    first one, for it was not probed anew, counts once: copies would outvote what was measured.
    """
    first = profiles[0]
    cores = first.hardware.get("cores") or inf
    tables = (first.constants, *(anew(one, first) for one in profiles[1:]))

    def drifts(name: str) -> bool:
        clocked = re.fullmatch(_CLOCKED, name)
        busy = clocked is not None and int(clocked[1]) >= cores
        return busy or bool(re.fullmatch(rf"{DRIFTING}|{_OF_LINKS}", name))

    small = merged(
        [{k: c for k, c in _matching(_SMALL, one).items() if not drifts(k)} for one in tables], middle
    )
    small = {name: at_most(c, cores) if name.startswith("device.") else c for name, c in small.items()}
    drifting = [found for one in tables if (found := {k: c for k, c in one.items() if drifts(k)})]
    return replace(
        profiles[-1],
        constants={**profiles[-1].constants, **small, **merged(drifting[-LATEST:], middle)},
    )


def _matching(pattern: str, constants: Mapping[str, Constant]) -> dict[str, Constant]:
    return {name: one for name, one in constants.items() if re.fullmatch(pattern, name)}
