"""Calibrate this machine: run probes, fit constants, write them as a profile.

Rules this module obeys:

* Constants come from probes only (``aladdin.probing``).
* Every probe runs once, in a fixed order. Before each, what all that are left cost is estimated, by what is
  known by then of the machine and of how wrong estimates were: all get the same share, as large as the
  budget allows.
* Then, as long as the budget lasts, every one runs again, for two moments of a machine say more than one;
  then those whose constants are in doubt, at most ``MOST`` times. Repetitions beside which the host of a
  virtual machine kept more of the cores than usual do not count where others do, and are made up for.
* What is still in doubt at the end is told: in the profile's notes, and as a flag of every prediction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aladdin import api, quiet
from aladdin.api import Source
from aladdin.probe import Learned, Probe
from aladdin.probing import covered, nominal, probes
from aladdin.probing_links import SLOWER
from aladdin.running import Progress, Runner, run_for_real
from analysis.calibrate import CalibrationError
from analysis.repetitions import doubts, merged
from scenarios import Scenario, ScenarioError, files
from scenarios.fields import integer, one_of, real, sequence
from scenarios.profile import LINKS, Profile

__all__ = ["LONGEST", "calibrate", "planned"]

LONGEST = 7 * 86400.0
"""Seconds that a budget is at most, of a calibration or of a cross-check."""

BUDGET = 60.0
"""Seconds that a calibration takes, unless the fewest repetitions of all probes take longer, or the host of a
virtual machine keeps its cores."""

RESERVE = 0.05
"""Share of the budget that plans leave for what they do not know."""

FIRST = 3.0
"""Seconds, for plans, that the first start of processes takes longer than others: torch is loaded."""

SURPRISE = 4.0
"""How many times as long as was estimated others are at most believed to take, for those so far have."""

MOST = 4
"""Repetitions of a probe."""

PATIENCE = 1.3
"""Times the budget that probes may take from which the host always kept cores; their repetitions are twice
``MOST`` at most."""

ROUNDS = 2
"""Repetitions of all probes that the shares of a budget are meant for."""


def calibrate(
    scenario: Source,
    *,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    workers: Sequence[int] = (),
    links: Sequence[str] = (),
    budget: float = BUDGET,
    run: Runner | None = None,
    on_progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Profile:
    """Probe this machine with the workload and emulation that ``scenario`` asks for; fit a profile.

    out      file that the profile is written to (JSON); must not exist yet
    workers  numbers of workers at which steps and all-reduce are probed; default: 2 and the
             scenario's own
    links    kinds of links that are probed; default: native, paced, and shaped if the scenario's are
    budget   seconds; a first round of all probes always runs, if need be with the least that can be
             fitted, and what follows only where there is time; probes during all of whose repetitions the
             host of a virtual machine kept cores for others are repeated for three tenths of it longer
    run      what runs a probe's scenario; default: the real driver
    clock    tells the seconds that this takes

    Raises ``CalibrationError`` where a probe cannot be fitted at first, ``ScenarioError`` for bad input.
    """
    base = api.load(scenario, overrides=overrides)
    path = None if out is None else _new_file(files.place(out, "out"))
    budget = real(above=0.0, high=LONGEST, dimension="seconds")(budget, "budget")
    asked = sequence(integer(1))(workers, "workers")
    counts = sorted({*(asked or (base.cluster.workers,)), 2} - {1})
    chosen = sequence(one_of(*LINKS.split("|")))(links, "links")
    kinds = tuple(dict.fromkeys(chosen or ("native", "paced", base.run.links)))
    profile = _blank(base, counts, kinds)
    todo = list(probes(base, counts, kinds))
    profile = _Calibration(profile, todo, budget, run or run_for_real, on_progress, clock).run()
    if path is not None:
        profile.write(path)
    return profile


def planned(scenario: Source, workers: Sequence[int], links: Sequence[str], budget: float = BUDGET) -> float:
    """Seconds that the first round of a calibration takes, as it is planned before anything is known."""
    base = api.load(scenario)
    blank, todo, left = _blank(base, workers, links), list(probes(base, workers, links)), budget - FIRST
    share = _share(todo, blank, _most(todo, blank, budget), left - RESERVE * budget)
    needed = [probe for probe in todo if not probe.spare]
    return FIRST + _seconds(todo if _seconds(todo, blank, share) <= left else needed, blank, share)


def _blank(base: Scenario, counts: Sequence[int], kinds: Sequence[str]) -> Profile:
    """A profile that knows nothing yet."""
    rates = {} if tuple(kinds) == ("native",) else {"link_rate": (nominal(base) / SLOWER, nominal(base))}
    return Profile(
        constants={},
        hardware=api.hardware(),
        workload={name: getattr(base.workload, name) for name in ("model", "data", "batch")},
        ranges={"message_bytes": covered(base, kinds), "workers": (1, max(counts)), **rates},
    )


def _seconds(todo: Sequence[Probe], known: Profile, share: float) -> float:
    return sum(probe.seconds(known, share) for probe in todo)


def _share(todo: Sequence[Probe], known: Profile, most: float, seconds: float) -> float:
    """The largest share up to ``most`` with which ``todo`` takes no longer than ``seconds``, or 0."""
    low, high = 0.0, most
    if _seconds(todo, known, most) <= seconds:
        return most
    for _ in range(20):
        half = (low + high) / 2
        low, high = (half, high) if _seconds(todo, known, half) <= seconds else (low, half)
    return low


def _most(todo: Sequence[Probe], known: Profile, budget: float) -> float:
    """The share with which ``todo`` takes its part of ``budget``; where it has not so many rounds, any."""
    most = budget / ROUNDS / len(todo)
    return _share(todo, known, most, (budget - FIRST) / ROUNDS) or most


class _Calibration:
    """Probes under way: what each repetition of each has said."""

    def __init__(
        self, blank: Profile, probes: list[Probe], budget: float, run: Runner,
        on_progress: Progress | None, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.blank, self.probes, self.budget, self.runner = blank, probes, budget, run
        self.learned: list[list[Learned]] = [[] for _ in probes]
        self.took = [0.0] * len(probes)
        self.shares = [budget / ROUNDS / len(probes)] * len(probes)
        self.estimated = self.measured = 0.0
        self.first_round = 0.0
        self.on_progress, self.clock = on_progress, clock
        self.when, self.begun = "", clock()
        self.others = quiet.busy()

    def run(self) -> Profile:
        """All probes, all again, the doubtful again and again."""
        for i in range(len(self.probes)):
            self._plan(i)
            if not (self.probes[i].spare and self._passed() + self._expected(i) > self.budget):
                self._measure(i)
        self.first_round = self._passed()
        for i in range(len(self.probes)):
            if self._affordable(i):
                self._measure(i)
        while True:
            doubtful = [i for i in range(len(self.probes)) if self._doubtful(i) and self._affordable(i)]
            if not doubtful:
                break
            self._measure(min(doubtful, key=lambda i: len(self.learned[i])))
        count = sum(map(len, self.learned))
        if self.on_progress:
            self.on_progress("probing", count, count)
        return self.profile()

    def _plan(self, i: int) -> None:
        """Settle the share of probe ``i``: that of all that are left, by what is left of the budget."""
        left = self.budget * (1 - RESERVE) - self._passed() - (0.0 if i else FIRST)
        known, pace = self.profile(), self._pace()
        most = _most(self.probes, known, self.budget / pace)
        self.shares[i] = _share(self.probes[i:], known, most, left / pace)

    def _pace(self) -> float:
        """How many times as long as was estimated the probes so far have taken."""
        if not self.estimated:
            return 1.0
        return min(max(self.measured / self.estimated, 1 / SURPRISE), SURPRISE)

    def _expected(self, i: int) -> float:
        return self.probes[i].seconds(self.profile(), self.shares[i]) * self._pace()

    def _passed(self) -> float:
        return self.clock() - self.begun

    def _measure(self, i: int) -> None:
        if self.on_progress:
            done = sum(map(len, self.learned))
            self.on_progress("probing", done, max(done + 1, ROUNDS * len(self.probes)))
        begun, known, probe = self.clock(), self.profile(), self.probes[i]
        records = [self.runner(scenario) for scenario in probe.scenarios(known, self.shares[i])]
        if records:
            self.when = str(records[-1].manifest.get("environment", {}).get("when", ""))
        try:
            said = probe.learn(records, known)
        except CalibrationError as error:
            if not self.learned[i]:
                raise
            said = Learned(failed=str(error))
        self.learned[i].append(replace(said, stolen=quiet.stolen(records)))
        self.took[i] = self.clock() - begun
        if i:  # the first also loads torch
            self.estimated += probe.seconds(known, self.shares[i])
            self.measured += self.took[i]

    def _affordable(self, i: int) -> bool:
        took = self.took[i] if self.learned[i] else self._expected(i)
        alone = not self.learned[i] or bool(self._undisturbed(i))
        return self._passed() + took <= self.budget * (1.0 if alone else PATIENCE)

    def _undisturbed(self, i: int) -> list[Learned]:
        """The repetitions of probe ``i`` beside which the machine's host kept no more than usual."""
        usual = quiet.least([one.stolen for one in own] for own in self.learned)
        return [one for one in self.learned[i] if not quiet.too_much(one.stolen, usual)]

    def _sound(self, i: int) -> list[Learned]:
        """Those of them that say something."""
        return [one for one in self._undisturbed(i) if not one.failed]

    def _counted(self) -> list[Sequence[Learned]]:
        """The repetitions of each probe that count: the sound ones, or all where there are none."""
        return [self._sound(i) or own for i, own in enumerate(self.learned)]

    def _doubtful(self, i: int) -> bool:
        own, undisturbed, sound = self.learned[i], self._undisturbed(i), self._sound(i)
        if not own or len(undisturbed) >= MOST or len(own) >= 2 * MOST:
            return False
        if not sound or len(undisturbed) < min(len(own), ROUNDS):
            return True
        return bool(doubts(merged([one.constants for one in sound])))

    def profile(self) -> Profile:
        """What has been learned so far, with fits, doubts and repetitions in its notes."""
        learned = self._counted()
        constants = merged([one.constants for several in learned for one in several])
        notes: dict[str, Any] = {}
        fits: dict[str, list[Any]] = {}
        for several in learned:
            for one in several:
                for name, fit in one.fits.items():
                    if name.endswith(".fit"):
                        notes[name] = fit
                    else:
                        fits.setdefault(name, []).append(fit)
        notes["fits"] = fits
        failed = {
            probe.what: own[-1].failed
            for probe, own in zip(self.probes, learned, strict=True)
            if own and all(one.failed for one in own)
        }
        noisy = "; ".join(why for why in (quiet.word(self.others), _kept(learned)) if why)
        notes["doubts"] = doubts(constants) | failed | ({"the whole profile": noisy} if noisy else {})
        notes["others_busy"] = self.others
        notes["stolen"] = {
            probe.what: [one.stolen for one in own]
            for probe, own in zip(self.probes, self.learned, strict=True)
        }
        notes["repetitions"] = {
            probe.what: len(own) for probe, own in zip(self.probes, self.learned, strict=True)
        }
        notes["seconds"], notes["first_round"] = round(self._passed(), 1), round(self.first_round, 1)
        models = [one.model for several in learned for one in several if one.model]
        return replace(
            self.blank,
            constants=constants,
            notes=notes,
            when=self.when,
            step_time_model=_model(models, constants),
        )


def _kept(learned: Sequence[Sequence[Learned]]) -> str:
    """What is to be said of probes from which the host kept cores in every repetition; empty without any."""
    worst = [min((one.stolen or 0.0 for one in own), default=0.0) for own in learned]
    short = [share for share in worst if share > quiet.STOLEN]
    if not short:
        return ""
    kept = quiet.kept_back(f"up to {max(short):.0%}")
    return f"{kept} during {len(short)} of {sum(map(bool, learned))} probes"


def _model(models: Sequence[str], constants: Mapping[str, Any]) -> str:
    """The distribution that most repetitions found (of equals the first), if the spread allows it."""
    if not models:
        return "constant"
    model = max(dict.fromkeys(models), key=models.count)
    wide = "step_time.spread" in constants and constants["step_time.spread"].value > 1
    return "lognormal" if model == "shifted_exponential" and wide else model


def _new_file(path: Path) -> Path:
    if path.exists():
        raise ScenarioError(
            "out", str(path), hint="exists already and is never overwritten; give another --out"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x"):
            pass
        path.unlink()
    except OSError as error:
        raise ScenarioError("out", str(path), hint=f"cannot be written: {error}") from error
    return path
