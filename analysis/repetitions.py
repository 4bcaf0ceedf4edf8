"""One constant out of several repetitions of its probe, and whether it can be trusted.

Rules this module obeys:

* The interval of a constant covers what changed between repetitions, not only within one: it is the
  hull of the intervals of the repetitions that count.
* Two repetitions both count. Of more, the majority whose values lie closest together counts: one that was
  disturbed is outvoted, and the constant's note says so.
* A constant is in doubt where half of its interval is wider than its tolerance: the share of it, or the
  amount, below which a step of tens of milliseconds does not notice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from scenarios.profile import Constant

__all__ = ["doubt", "doubts", "merge", "merged", "middle", "scatter"]

_TOLERANCES: tuple[tuple[str, float, float], ...] = (
    (r"step_time\.mean.*", 0.10, 0.0),
    (r"step_time\.spread.*", 0.50, 0.10),
    (r"step_time\.cold|pacing\.overhead", 0.50, 1e-3),
    (r"device\.slots.*", 0.15, 0.0),
    (r"tensor_rate\..*", 0.25, 0.0),
    (r"tensor_seconds\..*|program\.message", 0.50, 1e-4),
    (r"link\.native\.(bandwidth|shared)", 0.20, 0.0),
    (r"link\..*\.(bandwidth|shared|efficiency(\.slow)?)", 0.03, 0.0),
    (r"link\..*\.(latency|overhead)", 0.50, 5e-4),
    (r"allreduce\.alpha.*|ring\..*|hub\..*", 0.50, 1e-3),
    (r"allreduce\.bandwidth.*", 0.30, 0.0),
    (r"host\..*", 0.30, 5e-10),
)
"""Pattern of a constant's name, tolerance of half of its interval: a share of its value, or an amount."""

_WIDEST = 100
"""How many times as wide as it may be an interval is told to be, at most: beyond, it says nothing at all."""


def merge(repetitions: Sequence[Constant]) -> Constant:
    """One constant of all repetitions; raises ``ValueError`` without any."""
    if not repetitions:
        raise ValueError("no repetition to merge")
    ordered = sorted(repetitions, key=lambda constant: constant.value)
    count = len(ordered)
    keep = count if count < 3 else count // 2 + 1
    first = min(range(count - keep + 1), key=lambda i: ordered[i + keep - 1].value - ordered[i].value)
    chosen = ordered[first : first + keep]
    value = float(np.mean([one.value for one in chosen]))
    note = chosen[0].note
    if keep < count:
        note = f"{note + '; ' if note else ''}{count - keep} of {count} repetitions outvoted"
    return replace(
        chosen[0],
        value=value,
        low=min(value, *(one.low for one in chosen)),
        high=max(value, *(one.high for one in chosen)),
        samples=sum(one.samples for one in chosen),
        note=note,
    )


def middle(repetitions: Sequence[Constant]) -> Constant:
    """One constant of all repetitions of what scatters more than each says: the mean of their middle half.

    Where most are small and some large, as differences of step times are, those that lie closest
    together (``merge``) are the small ones, and the mean over time, which runs have, is above them. The
    interval covers those of all that count. Raises ``ValueError`` without any.
    """
    if not repetitions:
        raise ValueError("no repetition to merge")
    ordered = sorted(repetitions, key=lambda constant: constant.value)
    cut = len(ordered) // 4
    kept = ordered[cut : len(ordered) - cut]
    value = float(np.mean([one.value for one in kept]))  # of equal ones it may lie an ulp beside them
    return replace(
        kept[0],
        value=value,
        low=min(value, *(one.low for one in kept)),
        high=max(value, *(one.high for one in kept)),
        samples=sum(one.samples for one in kept),
    )


def merged(
    repetitions: Sequence[Mapping[str, Constant]], one: Callable[[Sequence[Constant]], Constant] = merge
) -> dict[str, Constant]:
    """``one`` constant of each name in several tables; a name counts the repetitions that have it."""
    names = dict.fromkeys(name for table in repetitions for name in table)
    return {name: one([table[name] for table in repetitions if name in table]) for name in names}


def scatter(values: Sequence[float]) -> tuple[float, float]:
    """(median, relative scatter): 1.4826 times the median deviation from it, the standard deviation but for
    outliers. Raises ``StatisticsError`` without any values."""
    usual = median(values)
    return usual, 1.4826 * median(abs(one / usual - 1.0) for one in values)


def doubt(name: str, constant: Constant) -> str:
    """Why ``constant`` is in doubt, in words; empty if it is not, or if nobody minds its width."""
    for pattern, share, amount in _TOLERANCES:
        if re.fullmatch(pattern, name):
            half = (constant.high - constant.low) / 2
            allowed = max(share * abs(constant.value), amount)
            if half <= allowed:
                return ""
            unit = "" if constant.unit == "1" else f" {constant.unit}"
            times = max(round(half / allowed, 1), 1.1)
            wide = f"{times}" if half < _WIDEST * allowed else f"more than {_WIDEST}"
            return (
                f"interval {constant.low:.3g} to {constant.high:.3g}{unit}, {wide} times as wide as it may be"
            )
    return ""


def doubts(constants: Mapping[str, Constant]) -> dict[str, str]:
    """The constants in doubt, and why."""
    found = {name: doubt(name, constant) for name, constant in constants.items()}
    return {name: why for name, why in found.items() if why}
