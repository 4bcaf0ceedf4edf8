"""How fast workers compute and how unevenly: step-time distributions and slow-downs.

Rules this module obeys:

* These are descriptions, checked when made; ``scenarios.steptime`` draws from them.
* Times are seconds; text with units is read on the way in.
* Step times and factors stay where their products are times: a mean between 1 ns and 32 years, a spread
  of at most 10 (beyond it the few draws of a run say nothing of the mean), factors of at most a million.
* The mean is that of an undisturbed worker: slow-downs multiply, ``overhead`` is added last.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, fields
from typing import Any

from scenarios.errors import ScenarioError
from scenarios.fields import amount, check, choice, listed, number, numbers, of_kind, real
from scenarios.machines import MOST

__all__ = ["MODELS", "SLOWDOWNS", "Slowdown", "StepTime"]

MODELS = ("constant", "lognormal", "gamma", "shifted_exponential", "empirical")
SLOWDOWNS = ("fixed", "transient", "heavy_tailed", "scheduled")
SETTINGS = {
    "fixed": ("factor",), "transient": ("factor", "mean_on", "mean_off"), "heavy_tailed": ("shape",),
    "scheduled": ("intervals",),
}  # fmt: skip
"""Which fields say something about which kind of slow-down."""

WIDEST = 10.0
"""Largest spread of a distribution; that of measured samples is what it is."""

FACTOR = real(above=0.0, high=1e6)
"""Device speeds and slow-downs."""


@dataclass(frozen=True)
class StepTime:
    """Distribution of one step's compute time, before slow-downs.

    model     constant | lognormal | gamma | shifted_exponential | empirical
    mean      seconds
    spread    coefficient of variation (standard deviation / mean)
    samples   seconds; for ``empirical``, which draws from them and takes mean and spread from them
    scale     optional factor on the mean per rank (device speeds)
    overhead  seconds added to every step after all factors (what pacing costs; from a profile)
    """

    model: str = choice("constant", *MODELS)
    mean: float = amount(0.1, "seconds", low=1e-9)
    spread: float = number(0.0, low=0.0, high=math.inf)
    samples: tuple[float, ...] = listed(real(dimension="seconds", low=1e-9))
    scale: tuple[float, ...] = listed(FACTOR)
    overhead: float = amount(0.0, "seconds")

    def __post_init__(self) -> None:
        check(self)
        if (self.model == "empirical") != bool(self.samples):
            valid = (
                "measured step times for model empirical"
                if not self.samples
                else "none unless model is empirical"
            )
            raise ScenarioError("samples", self.samples, valid)
        if self.model == "constant" and self.spread:
            raise ScenarioError("spread", self.spread, "0 for model constant; or choose another model")
        if self.model != "empirical" and self.spread > WIDEST:
            raise ScenarioError("spread", self.spread, f"a number of at most {WIDEST:g}")
        if self.model == "shifted_exponential" and self.spread > 1:
            raise ScenarioError("spread", self.spread, "a number in [0, 1] for model shifted_exponential")
        if self.samples:
            mean = statistics.fmean(self.samples)
            object.__setattr__(self, "mean", mean)
            object.__setattr__(self, "spread", statistics.pstdev(self.samples) / mean)


def _ranks(value: Any, name: str) -> tuple[int, ...]:
    ranks: tuple[int, ...] = () if value == "all" else numbers(MOST)(value, name)
    if len(set(ranks)) != len(ranks):
        raise ScenarioError(name, value, "each rank once")
    return ranks


def _interval(value: Any, name: str) -> tuple[float, float, float]:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise ScenarioError(name, value, "three values: start, end, factor")
    start, end = (real(dimension="seconds", low=0.0)(v, name) for v in value[:2])
    if not start < end:
        raise ScenarioError(name, value, "a start before the end")
    return start, end, FACTOR(value[2], name)


@dataclass(frozen=True)
class Slowdown:
    """A straggler: multiplies the step times of ``ranks``; several on one rank multiply.

    kind       fixed: by ``factor`` (never 1), always. transient: by ``factor`` in an on/off Markov process
               of simulated time. heavy_tailed: each step by 1 + a Lomax (Pareto II) draw of
               ``shape``. scheduled: by each interval's factor while it lasts.
    ranks      the workers concerned; empty (or ``all``): every worker
    mean_on    transient: mean seconds slow; mean_off: mean seconds at full speed
    intervals  scheduled: (start s, end s, factor)
    """

    kind: str = choice("fixed", *SLOWDOWNS)
    ranks: tuple[int, ...] = of_kind((), _ranks)
    factor: float = of_kind(1.0, FACTOR)
    mean_on: float = amount(0.0, "seconds")
    mean_off: float = amount(0.0, "seconds")
    shape: float = number(2.5, above=1.0, high=1e6)
    intervals: tuple[tuple[float, float, float], ...] = listed(_interval)

    def __post_init__(self) -> None:
        check(self)
        if self.kind == "transient":
            for name in ("mean_on", "mean_off"):
                if getattr(self, name) < 1e-6:
                    valid = "a time of at least 1 us for a transient slow-down"
                    raise ScenarioError(name, getattr(self, name), valid)
        if "factor" in SETTINGS[self.kind] and self.factor == 1:
            raise ScenarioError("factor", self.factor, "a factor other than 1, which slows nobody down")
        if self.kind == "scheduled" and not self.intervals:
            raise ScenarioError("intervals", self.intervals, "intervals for a scheduled slow-down")
        for other in fields(self):
            foreign = other.name not in ("kind", "ranks", *SETTINGS[self.kind])
            if foreign and getattr(self, other.name) != other.default:
                own = ", ".join(SETTINGS[self.kind])
                raise ScenarioError(
                    other.name, getattr(self, other.name), f"nothing: a {self.kind} slow-down has {own}"
                )
