"""One round of a cross-check's cell: its probes, prediction and run, and whether the machine kept its speed.

Rules this module obeys:

* A round is judged by the machine's own speed alone, never by what it measured or by its error: by how long
  native steps took just before it and just after it, and by how much of the cores the host of a virtual
  machine kept for others meanwhile.
* It is disturbed where steps took longer or shorter than usual, which is the median over all probes of the
  same workload in the same check, by more than ``TOLERANCE`` and by more than ``UNUSUAL`` times as much as
  such probes scatter there; or where the host kept more of the cores than usual (``quiet.too_much``). Such a
  round is told and kept, and does not count where others of its cell do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aladdin import api, quiet
from aladdin.reprobing import refresh
from aladdin.running import Runner
from analysis import crosscheck as checks
from analysis.calibrate import CalibrationError
from analysis.repetitions import scatter
from core.record import Record
from scenarios import Scenario
from scenarios.profile import Profile

__all__ = [
    "DRAWS", "TOLERANCE", "disturbed", "draws", "foretell", "measured", "probed", "refreshed", "simulated",
    "speeds", "takes",
]  # fmt: skip

TOLERANCE = 0.08
"""Share by which steps may take longer or shorter than usual just before and just after a round."""

DRAWS = 8
"""Simulations that a prediction is the mean of: they differ in what no run repeats, and so do runs."""

STARTING, PER_NODE = 3.0, 0.6
"""Seconds, for plans: of starting a run, and per node of it."""

_FORMER = "not probed anew before its run, constants of former probes stand: "

UNUSUAL = 3
"""Standard deviations, as probes of that workload scatter, that are no scatter any more."""


def refreshed(
    profile: Profile, scenario: Scenario, run: Runner, small: bool
) -> tuple[Profile, tuple[str, ...]]:
    """Constants of now, probed twice if need be; where both fail the former ones, and why (flags)."""
    why = ""
    for _ in range(2):
        try:
            return refresh(profile, scenario, run, small=small), ()
        except CalibrationError as error:
            why = str(error)
    return profile, (f"{_FORMER}{why}",)


def probed(
    profile: Profile,
    scenario: Scenario,
    run: Runner,
    often: Sequence[bool],
    keep: Callable[[Profile, bool], Profile],
) -> tuple[Profile, Profile | None, tuple[str, ...]]:
    """Probes before a round, one for each of ``often``, which says whether it is also of what scatters.

    keep  is given the constants that each has found, and whether what scatters is among them; returns those
          that predictions take

    Returns what predictions take, what the last probe that did not fail has found, and what must be known
    (flags). In doubt is what none of them could measure; what only some could not is told, and how many.
    """
    told: list[tuple[Profile, tuple[str, ...]]] = []
    for small in often:
        now, why = refreshed(profile, scenario, run, small)
        fresh = keep(now, small and not why)
        told.append((now, why))
    sound, count = [now for now, why in told if not why], len(told)
    failed = [why for _, why in told if why]
    if not sound:
        return fresh, None, failed[-1]
    flags = [f"{len(failed)} of {count} probes before its run failed: {why[0].removeprefix(_FORMER)}"
             for why in failed[-1:]]  # fmt: skip
    doubts: dict[str, list[str]] = {}
    for now in sound:
        for what, why in now.notes.get("doubts", {}).items():
            doubts.setdefault(what, []).append(why)
    flags += [
        f"{len(whys)} of {count} probes of {what} before its run said nothing: {whys[-1]}"
        for what, whys in doubts.items()
        if len(whys) < len(sound)
    ]
    left = {what: whys[-1] for what, whys in doubts.items() if len(whys) == len(sound)}
    return replace(fresh, notes={**fresh.notes, "doubts": left}), sound[-1], tuple(flags)


def takes(scenario: Scenario, probing: float) -> float:
    """Seconds, for plans, that a round takes, ``probing`` of them before and after its run."""
    return scenario.run.seconds + STARTING + PER_NODE * (scenario.cluster.workers + 1) + probing


def measured(scenario: Scenario, run: Runner) -> Record:
    """The real run of a cell; once more where a process was lost unasked, for then it is another cell."""
    record = run(scenario)
    if not record.manifest.get("lost") or scenario.faults:
        return record
    again = run(scenario)
    again.manifest["flags"] = [
        "measured again, after a run that lost a process",
        *again.manifest.get("flags", []),
    ]
    return again


def simulated(scenario: Scenario, profile: Profile) -> Record:
    """Our simulation of a scenario on the machine of ``profile``."""
    from sim import simulate

    return simulate(profile.apply(scenario))


def draws(scenario: Scenario, profile: Profile, often: int = DRAWS) -> list[Record]:
    """Simulations of a scenario on the machine of ``profile``, so many of them.

    They differ in what no run repeats: how long each native step takes, which core it finds, how late
    messages of rings are. All that the run's seed decides for both drivers is the same in all.
    """
    from sim import simulate

    calibrated = profile.apply(scenario)
    if not (calibrated.cluster.host.cores or calibrated.run.compute == "native"):
        often = 1  # nothing is drawn
    return [simulate(calibrated.override({"cluster.host.draw": draw})) for draw in range(often)]


def foretell(scenario: Scenario, profile: Profile, often: int = DRAWS) -> tuple[Record, checks.Prediction]:
    """A simulation of a scenario on the machine of ``profile``; what so many and simpler models predict."""
    from sim import simulate

    calibrated = profile.apply(scenario)
    admission = calibrated.cluster.network.admission
    other = calibrated.override({"cluster.network.admission": "fair" if admission != "fair" else "fifo"})
    simpler = {"no_queueing": simulate(_without_queues(calibrated)), "wrong_admission": simulate(other)}
    records = draws(scenario, profile, often)
    return records[0], checks.predict(records, simpler, profile.warnings(scenario, api.hardware()))


def _without_queues(scenario: Scenario) -> Scenario:
    """The same cluster with servers as wide as all workers' links together: nobody ever queues."""
    widest = max(machine.up for machine in scenario.cluster.machines)
    return scenario.override({
        "cluster.network.admission": "fair",
        "cluster.servers.bandwidth": widest * scenario.cluster.workers,
    })  # fmt: skip


def speeds(said: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of a native step alone before and after a round, as far as what was said of it tells."""
    found = {"before": said.get("alone_before"), "after": said.get("alone_after")}
    return {when: seconds for when, seconds in found.items() if seconds is not None}


def disturbed(said: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> str:
    """Why a round does not count, in words; empty if the machine kept its speed.

    said    what was said of it; others: of all rounds of the same workload, itself included
    """
    own, others = speeds(said), list(others)
    kept = said.get("stolen")
    if quiet.too_much(kept, [other.get("stolen") for other in others]):
        return quiet.kept_back(f"{kept:.0%}")
    if not own:
        return ""
    usual, share = scatter([seconds for other in others for seconds in speeds(other).values()])
    for when, seconds in own.items():
        off = seconds / usual - 1.0
        if abs(off) > max(TOLERANCE, UNUSUAL * share):
            return f"steps alone took {1e3 * seconds:.3g} ms {when} it, {off:+.0%} against the usual"
    return ""
