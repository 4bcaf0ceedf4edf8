"""A miss taken apart: what would have been predicted, had the machine's speed during the run been known.

Rules this module obeys:

* It is no prediction and never counts as one: it is made after the run, of one number that the run measured,
  how long its steps computed in the mean.
* That number is met by one factor on all native steps; nothing else is touched. What error is left then is
  none of the machine's speed, and where no factor within ``BOUNDS`` meets it nothing is said.
"""

from __future__ import annotations

import re
from dataclasses import replace
from math import exp, log

from aladdin.rounds import draws
from analysis import crosscheck as checks
from scenarios import Scenario
from scenarios.profile import Profile

__all__ = ["at_own_speed"]

BOUNDS = 0.4, 2.5
"""Factors between which a machine's speed is looked for."""

CLOSE = 0.005
"""Relative distance from the measured time at which a factor is found."""

TRIES = 6

_OF_STEPS = r"step_time\.(mean|cold)(\.\d+)?"


def at_own_speed(
    scenario: Scenario, profile: Profile, predicted: checks.Prediction, compute: float
) -> checks.Hindsight | None:
    """``predicted`` anew, with native steps that compute for ``compute`` seconds each in the mean.

    None where steps are paced, and where no factor on all steps makes them so long.
    """
    there = predicted.parts["compute"]
    if scenario.run.compute != "native" or min(there, compute) <= 0:
        return None
    found = [(0.0, log(there / compute))]  # logarithms of factors, and of what they miss by
    said = predicted
    while abs(found[-1][1]) > CLOSE:
        guess = _next(found)
        if len(found) > TRIES or not BOUNDS[0] < exp(guess) < BOUNDS[1]:
            return None
        said = checks.predict(draws(scenario, stretched(profile, exp(guess))))
        if said.parts["compute"] <= 0:
            return None
        found.append((guess, log(said.parts["compute"] / compute)))
    return checks.Hindsight(said.throughput, exp(found[-1][0]))


def _next(found: list[tuple[float, float]]) -> float:
    """The secant's guess, in steps that a slope of at least a third allows."""
    at, off = found[-1]
    slope = 1.0
    if len(found) > 1:
        before, was = found[-2]
        slope = (off - was) / (at - before)
    return at - off / max(slope, 1 / 3)


def stretched(profile: Profile, factor: float) -> Profile:
    """``profile`` of a machine whose native steps take ``factor`` times as long."""
    longer = {
        name: replace(one, value=one.value * factor, low=one.low * factor, high=one.high * factor)
        for name, one in profile.constants.items()
        if re.fullmatch(_OF_STEPS, name)
    }
    return replace(profile, constants={**profile.constants, **longer})
