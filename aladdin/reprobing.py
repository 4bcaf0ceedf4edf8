"""Probe again what drifts: a few seconds before a run that is predicted, and after it.

Rules this module obeys:

* Constants come from probes only (``aladdin.probing``); what is measured anew replaces what was known.
* A probe beside a host that keeps more of the cores than it did in the calibration runs again, up to
  ``ATTEMPTS`` times; that from which it kept the least counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from aladdin import api, quiet
from aladdin.api import Source
from aladdin.pooling import DRIFTING
from aladdin.probing import refreshing, speed
from aladdin.running import Runner, run_for_real
from core.record import Record
from scenarios import Scenario
from scenarios.profile import Profile

__all__ = ["SHARE", "alone", "refresh", "refreshed_in"]

_OF_STEPS = r"(step_time|device)\..*|host\..*\.beside.*"
"""Constants that say how long native steps take: alone, beside others, beside messages."""

SHARE = 2.0
"""Seconds that each probe measures which follows a machine: before a run that is predicted, and after it."""

ATTEMPTS = 3
"""Times that a probe before or after a round runs at most, where the host keeps cores."""


def _attempted(run: Runner, scenes: Sequence[Scenario], known: Profile) -> list[Record]:
    """The records of a probe's runs; of up to three attempts those beside which the host kept the least.

    There is one only where it keeps no more than it did in the calibration.
    """
    usual = quiet.least(known.notes.get("stolen", {}).values())
    attempts: list[list[Record]] = []
    while len(attempts) < ATTEMPTS:
        attempts.append([run(one) for one in scenes])
        share = quiet.stolen(attempts[-1])
        if not quiet.too_much(share, usual):
            break
    return min(attempts, key=lambda records: quiet.stolen(records) or 0.0)


def refresh(
    profile: Profile,
    scenario: Source,
    run: Runner | None = None,
    share: float = SHARE,
    small: bool = True,
) -> Profile:
    """``profile`` with the constants of what ``scenario`` has native, steps or links, measured anew.

    A machine that others use too changes its speed within minutes; a few short probes, of about ``share``
    seconds each or the least that can be fitted, follow it: with ``small`` also of what messages and pauses
    cost steps. Beside a host that keeps cores for others one runs up to three times. What one that is
    disturbed beyond use would have measured is left out, and in doubt. Raises ``CalibrationError`` where one
    cannot be fitted.
    """
    base, run = api.load(scenario), run or run_for_real
    known = profile
    if base.run.compute == "native":
        gone = _OF_STEPS if small else rf"{DRIFTING}|device\..*"
        kept = {name: c for name, c in profile.constants.items() if not re.fullmatch(gone, name)}
        profile = replace(profile, constants=kept)
    for probe in refreshing(base, base.run.links, small):
        guess = profile if "step_time.mean" in profile.constants else known
        records = _attempted(run, probe.scenarios(guess, share), known)
        learned = probe.learn(records, profile)
        model = learned.model or profile.step_time_model
        constants, notes = {**profile.constants, **learned.constants}, profile.notes
        doubts = {what: why for what, why in notes.get("doubts", {}).items() if what != probe.what}
        failed = {probe.what: learned.failed} if learned.failed else {}
        stolen = {**notes.get("stolen", {}), probe.what: [quiet.stolen(records)]}
        notes = {**notes, "doubts": {**doubts, **failed}, "stolen": stolen}
        profile = replace(profile, constants=constants, step_time_model=model, notes=notes)
    return profile


def refreshed_in(profile: Profile, scenario: Scenario, times: int = 1) -> float:
    """Seconds, for plans, that so many ``refresh`` take, and one ``alone`` where steps are native."""
    todo = times * list(refreshing(scenario, scenario.run.links))
    after = [speed(scenario)] if scenario.run.compute == "native" else []
    return sum(probe.seconds(profile, SHARE) for probe in [*todo, *after])


def alone(profile: Profile, scenario: Scenario, run: Runner, share: float = SHARE) -> Profile:
    """``profile`` with how long native steps take a worker that has the machine to itself, measured anew."""
    probe = speed(scenario)
    learned = probe.learn(_attempted(run, probe.scenarios(profile, share), profile), profile)
    return replace(profile, constants={**profile.constants, **learned.constants})
