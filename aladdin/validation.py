"""Hold predictions against this machine: predict -> run -> compare, cell by cell.

Rules this module obeys:

* A prediction is on disk before the run that it is compared with starts.
* All its constants come from probes, before the run. Nothing is fitted to a cell; without a given
  profile the constants of native steps and links are probed again before each run that has them, and
  stand beside the prediction that they made.
* Where the machine itself is the noise, one run says little: such cells have several rounds of probes,
  prediction and run, spread over the whole check; their means are compared. Which cells get further
  rounds depends on the width of their intervals, and on rounds that do not count for the machine changed
  its speed (``aladdin.rounds``); never on their errors.
* What is finished is on disk: a check that was stopped can go on from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from aladdin import api, quiet
from aladdin import rounds as one_round
from aladdin.api import Source
from aladdin.calibration import LONGEST, calibrate
from aladdin.designs import Design
from aladdin.designs.basic import Basic
from aladdin.hindsight import at_own_speed
from aladdin.probed import Probed
from aladdin.probing import alike, fixed
from aladdin.repeating import Rounds
from aladdin.reprobing import alone, refreshed_in
from aladdin.rounds import foretell
from aladdin.running import Progress, needed, run_for_real
from analysis import crosscheck as checks
from analysis import store, verdict
from analysis.calibrate import CalibrationError
from analysis.names import label
from core.record import Record
from scenarios import Scenario, ScenarioError
from scenarios.fields import real
from scenarios.profile import Profile

__all__ = ["Basic", "CrossCheck", "crosscheck", "foretell"]

CALIBRATING = 60.0
"""Seconds that the calibration for a workload takes at most; less where the budget is small."""


@dataclass(frozen=True)
class CrossCheck:
    """What a cross-check found: its cells, its figures, both records of the last run of every cell.

    left_out  cells that cannot be run here, and why; records are those of this call alone
    """

    cells: list[checks.Cell]
    figures: dict[str, Any]
    simulated: list[Record]
    measured: list[Record]
    path: Path | None = None
    left_out: list[str] = field(default_factory=list)
    misses: list[verdict.Miss] = field(default_factory=list)


def crosscheck(
    scenario: Source,
    *,
    profile: Profile | str | Path | None = None,
    design: Design | None = None,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    budget: float = 75 * 60.0,
    keep_runs: bool = False,
    on_progress: Progress | None = None,
    on_plan: Callable[[str], None] | None = None,
    on_calibration: Callable[[str], None] | None = None,
) -> CrossCheck:
    """Predict every cell of ``design`` (default: ``Basic()``), then run each for real, and compare.

    A scenario whose machines hold no other number of workers (listed, counted or joined ones) is checked
    on equal machines, one for each node, as its first one is.

    profile    calibrated constants (or their file) for all cells; without one this machine is
               calibrated first, once for each workload of the design, and what a cell has native is
               probed again before each run of it, for a processor's speed drifts (not on run.device: cuda)
    out        directory for plan.json, the profiles, predictions.json (written before the first run),
               probes.json (what each probe before a round said by itself), rounds.json, cells.json (means
               over rounds), cells.csv, figures.json, results.md and a picture; with ``keep_runs`` every
               run's record
    resume     ``out`` holds an earlier check of the same design: its finished rounds count, and so does the
               profile that it was begun with, if any
    budget     seconds after which no further rounds begin; the first of every cell always runs
    on_plan    called once, before the first run, with what is planned and how long it will take
    on_calibration  called in words when this machine begins to be calibrated for a workload, and ends

    Raises ``ScenarioError`` for bad input and where no cell can be run.
    """
    budget = real(above=0.0, high=LONGEST, dimension="seconds")(budget, "budget")
    return _Check(scenario, profile, design or Basic(), overrides, out, resume, budget, keep_runs).run(
        on_progress or _silent, on_plan or _silent, on_calibration or _silent
    )


def _silent(*_: Any) -> None:
    """Nobody asked to be told."""


class _Check:
    """One cross-check under way. Cells are known by their place in the design."""

    def __init__(
        self, scenario: Source, profile: Profile | str | Path | None, design: Design,
        overrides: Mapping[str, Any] | None, out: str | Path | None, resume: bool, budget: float,
        keep_runs: bool,
    ) -> None:  # fmt: skip
        loaded = api.load(scenario, overrides=overrides)
        self.replaced = fixed(loaded)
        self.base, self.design = alike(loaded) if self.replaced else loaded, design
        if self.base.run.device == "cuda":
            from real.checks import check_device

            check_device(self.base)
        if out is not None:
            needed("matplotlib")
        elif resume:
            raise ScenarioError("resume", True, "a directory to go on from (out)")
        self.folder = None if out is None else Path(out) if resume else store.reserve(Path(out))
        self.given = Profile.read(profile) if isinstance(profile, str | Path) else profile
        self.probing = self.given is None  # if one is given, nothing is probed; a check that goes on knows
        self.resume, self.budget, self.keep_runs = resume, budget, keep_runs
        self.levels = design.cells()
        self.chosen: dict[int, Scenario] = {}
        self.left_out: dict[int, str] = {}
        self.profiles: dict[str, Profile] = {}
        self.simulated: dict[int, Record] = {}
        self.measured: dict[int, Record] = {}
        self.predictions: dict[int, checks.Prediction] = {}
        self.rounds = Rounds(design, self.levels)
        self.probed = Probed(self.profiles)
        self.took: dict[int, float] = {}
        self.begun, self.before = time.perf_counter(), 0.0  # seconds of an earlier check that goes on

    def run(
        self, on_progress: Progress, on_plan: Callable[[str], None], on_calibration: Callable[[str], None]
    ) -> CrossCheck:
        """Predict, plan, run every round, compare."""
        for i, cell in enumerate(self.levels):
            try:
                self.chosen[i] = self.design.scenario(self.base, cell)
            except ScenarioError as error:
                self._leave_out(i, error)
        if self.resume:
            self._go_on()
        else:
            self._write("plan.json", self._about() | {"probing": self.probing})
        self._calibrate(on_progress, on_calibration)
        for i, scene in list(self.chosen.items()):
            profile = self.profiles[self.rounds.workload(i)]
            roughly = checks.predict(one_round.simulated(scene, profile))
            seconds = self.design.seconds(self.levels[i], roughly)
            self.chosen[i] = scene.override({"run.seconds": seconds})
            often = 1 if self._fresh(i) else one_round.DRAWS  # what is probed anew is predicted anew, too
            self.simulated[i], self.predictions[i] = foretell(self.chosen[i], profile, often)
            said = {**self.levels[i], "seconds": seconds, **vars(self.predictions[i])}
            self.rounds.said.setdefault((i, 0), said)
        on_plan(self._plan())
        self._write("predictions.json", self._said())
        done = sum(map(len, self.rounds.had.values()))
        for turn, i in self.rounds.schedule(self.chosen, self._affordable):
            on_progress("cross-check", done, max(done + 1, self.rounds.expected(self.chosen)))
            self._round(turn, i)
            done += 1
        on_progress("cross-check", done, done)
        cells = self._cells()
        if not cells:
            raise ScenarioError("design", self.design.name, hint="no cell of it can be run here")
        if self.folder is not None:
            from analysis import plots

            picture = self.folder / "predicted_vs_measured.png"
            plots.save(plots.predicted_measured(checks.pairs(cells)), picture)
        records = [dict(sorted(one.items())) for one in (self.simulated, self.measured)]
        return CrossCheck(
            cells, self._figures(cells), list(records[0].values()), list(records[1].values()), self.folder,
            [self.left_out[i] for i in sorted(self.left_out)], self._misses(cells),
        )  # fmt: skip

    # Before the first run

    def _leave_out(self, i: int, error: ScenarioError) -> None:
        """A cell under faults that cannot be run is left out; any other is a mistake."""
        if self.levels[i].get("faults", "none") == "none":
            raise error
        self.chosen.pop(i, None)
        cell = self.levels[i]
        self.left_out[i] = f"{label(cell['algorithm'])} under {cell['faults']} left out: {error}"
        for known in (self.simulated, self.measured, self.rounds.had):
            known.pop(i, None)

    def _go_on(self) -> None:
        """Take over what an earlier check of the same design and scenario has finished."""
        assert self.folder is not None
        try:
            plan = json.loads((self.folder / "plan.json").read_text(encoding="utf-8"))
            names = ("rounds", "predictions", "figures", "probes")
            files = [self.folder / f"{name}.json" for name in names]
            rounds, said, figures, probes = (
                json.loads(file.read_text(encoding="utf-8")) if file.exists() else [] for file in files
            )
        except (OSError, ValueError) as error:
            why = "it has no plan.json" if isinstance(error, FileNotFoundError) else error
            hint = f"a directory that a cross-check was begun in ({why})"
            raise ScenarioError("out", str(self.folder), hint) from error
        for name, value in store.plain(self._about()).items():
            if plan.get(name) != value:
                hint = f"a check of the same {name}; this one was begun with another"
                raise ScenarioError("out", str(self.folder), hint)
        for one in rounds:
            place = one.pop("cell")
            one.pop("round")
            one.pop("disturbed", None)
            self.rounds.had.setdefault(place, []).append(checks.Cell(**{**one, "flags": tuple(one["flags"])}))
        self.before = 60.0 * dict(figures).get("minutes", 0.0)
        self.rounds.said = {(one.pop("cell"), one.get("round", 0)): one for one in said}
        self.probed.restore(probes, lambda i, turn: turn < len(self.rounds.had.get(i, ())))
        for file in self.folder.glob("profile-*.json"):
            self.profiles[file.stem.removeprefix("profile-")] = Profile.read(file)
        self._as_begun(plan.get("probing", self.probing))

    def _as_begun(self, probing: bool) -> None:
        """Take constants from where the check took them at first: a profile that was given, or probes."""
        wanted = {self.rounds.workload(i) for i in self.chosen}
        if probing and not self.probing:
            hint = "nothing (this check was begun without a profile, and goes on without one)"
            raise ScenarioError("profile", "given", hint)
        missing = sorted(wanted - self.profiles.keys()) if self.given is None and not probing else []
        if missing:
            hint = f"that with which it was begun: profile-{missing[0]}.json is not in {self.folder}"
            raise ScenarioError("profile", None, hint)
        self.probing = probing

    def _calibrate(self, on_progress: Progress, say: Callable[[str], None]) -> None:
        """A profile for every workload of the design; cells with the same workload share one."""
        for i in self.chosen:
            name, changes = self.design.workload(self.levels[i])
            if self.given is not None:
                self.profiles[name] = self.given
            elif name not in self.profiles:
                budget, begun = max(1.0, min(CALIBRATING, self.budget / 8)), time.perf_counter()
                say(f"{name} begins, about {budget:.0f} s")
                self.profiles[name] = calibrate(
                    self.base.override(changes), workers=self.design.workers, links=self.design.links,
                    on_progress=on_progress, budget=budget,
                )  # fmt: skip
                say(f"{name} took {time.perf_counter() - begun:.1f} s")
            self._keep(name)

    def _keep(self, name: str) -> None:
        """Write the profile of a workload, or see that it is the one of an earlier check that goes on."""
        if self.folder is None:
            return
        file, profile = self.folder / f"profile-{name}.json", self.profiles[name]
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            profile.write(file)
        elif self.given is not None:
            there, here = (store.plain(one.to_dict()) for one in (Profile.read(file), profile))
            if there != here:
                hint = f"a check with the same profile; this one was begun with {file.name} in it"
                raise ScenarioError("out", str(self.folder), hint)

    def _plan(self) -> str:
        """Write the plan; say it in a line."""
        first = sum(self._cost(i) for i in self.chosen) + self._first_probes()
        least = sum(self._cost(i) * (self.design.rounds(self.levels[i])[0] - 1) for i in self.chosen)
        seconds = {i: scene.run.seconds for i, scene in self.chosen.items()}
        self._write("plan.json", {
            **self._about(), "probing": self.probing, "seconds": seconds, "first_rounds": first,
            "further_rounds": least, "budget": self.budget, "left_out": self.left_out,
        })  # fmt: skip
        passed = time.perf_counter() - self.begun
        return (
            f"{len(self.chosen)} cells ({self.design.name}), "
            f"{min(seconds.values(), default=0):g} to {max(seconds.values(), default=0):g} s each: about "
            f"{first / 60:.0f} min for the first rounds and {least / 60:.0f} min for further ones of cells "
            f"with native steps or links (calibrated in {passed / 60:.1f} min); none begins "
            f"after {self.budget / 60:g} min"
            + self._beyond(passed + first)
            + ("; on equal machines in place of the scenario's own" if self.replaced else "")
        )

    def _beyond(self, seconds: float) -> str:
        """What is to be said where calibration and first rounds take so long."""
        over = seconds > self.budget
        return f", but first rounds, with which it is {seconds / 60:.0f} min, all run" if over else ""

    def _about(self) -> dict[str, Any]:
        """What makes a check this one and no other."""
        return {"design": self.design.name, "scenario": self.base.to_dict(), "cells": self.levels}

    def _fresh(self, i: int) -> bool:
        """Whether a cell's constants are probed again before each run: what its processor does natively."""
        native = "native" in (self.levels[i]["links"], self.levels[i]["compute"])
        return native and self.probing and self.base.run.device == "cpu"

    def _cost(self, i: int, times: int = 1) -> float:
        """Seconds that a round takes: as its last one with its probes once, or an estimate with so many."""
        if i in self.took:
            return self.took[i]
        probing = refreshed_in(self.profiles[self.rounds.workload(i)], self._like(i), times)
        return one_round.takes(self.chosen[i], probing if self._fresh(i) else 0.0)

    def _first_probes(self) -> float:
        """Seconds of the probes that the first rounds of workloads have besides."""
        native = [i for i in self.chosen if self._fresh(i) and self.levels[i]["compute"] == "native"]
        firsts = {self.rounds.workload(i): i for i in reversed(native)}
        times = {i: len(self.probed.wanted(name, native=True)) for name, i in firsts.items()}
        return sum(self._cost(i, often) - self._cost(i) for i, often in times.items())

    # Rounds

    def _affordable(self, i: int) -> bool:
        return time.perf_counter() - self.begun + self._cost(i) <= self.budget

    def _like(self, i: int) -> Scenario:
        """What is probed anew before a cell's runs: its workload and processes, nothing else of it."""
        cell = self.levels[i]
        like = {"cluster.workers": cell["n"], "run.links": cell["links"], "run.compute": cell["compute"]}
        like |= {"algorithm.name": cell["algorithm"], "faults": [], "cluster.slowdowns": []}
        return self.base.override({**self.design.workload(cell)[1], **like})

    def _round(self, turn: int, i: int) -> None:
        """Probe what is native, predict, run, compare, write."""
        begun, scene, cell = time.perf_counter(), self.chosen[i], self.levels[i]
        profile, besides = self.profiles[self.rounds.workload(i)], 0.0
        if self._fresh(i):
            profile, besides = self._probe(turn, i)
        others = quiet.busy()
        said = {**self.rounds.said.get((i, turn), {**cell, "round": turn}), "others_busy": others}
        self.rounds.said[i, turn] = said
        try:
            self.measured[i] = one_round.measured(scene, run_for_real)
        except ScenarioError as error:
            self._leave_out(i, error)
            return
        said["stolen"] = quiet.stolen([self.measured[i]])
        if self._fresh(i) and cell["compute"] == "native":
            with suppress(CalibrationError):  # then the round is judged by what was probed before it
                name = self.rounds.workload(i)
                after = alone(self.profiles[name], self._like(i), run_for_real)
                said["alone_after"] = after.value("step_time.mean")
                self.probed.add(i, turn, name, after, small=False)
                self._write("probes.json", self.probed.rows)
        if noisy := quiet.word(others, said["stolen"]):
            self.measured[i].manifest["flags"] = [*self.measured[i].manifest.get("flags", []), noisy]
        self.rounds.had.setdefault(i, []).append(self._compared(i, profile))
        self.took[i] = time.perf_counter() - begun - besides
        self._save()
        if self.keep_runs and self.folder is not None:
            name = f"{api.slug(scene.name)}-{scene.algorithm.name}{f'-{turn}' if turn else ''}"
            store.write(self.measured[i], self.folder / "runs" / f"{name}-real")
            store.write(self.simulated[i], self.folder / "runs" / f"{name}-sim")

    def _probe(self, turn: int, i: int) -> tuple[Profile, float]:
        """Probe what a cell has native, and predict its round: by what; seconds of further probes."""
        begun, scene, name = time.perf_counter(), self.chosen[i], self.rounds.workload(i)
        native = self.levels[i]["compute"] == "native"
        often, keep = self.probed.wanted(name, native), partial(self.probed.add, i, turn, name)
        fresh, now, flags = one_round.probed(self.profiles[name], self._like(i), run_for_real, often, keep)
        besides = (time.perf_counter() - begun) * (1 - 1 / len(often))
        self.simulated[i], said = foretell(scene, fresh)
        self.predictions[i] = replace(said, flags=(*said.flags, *flags))
        self.rounds.said[i, turn] = {
            **self.levels[i], "seconds": scene.run.seconds, **vars(self.predictions[i]), "round": turn,
            "probed": {name: asdict(c) for name, c in fresh.since(self.profiles[name]).items()},
        }  # fmt: skip
        if native and now is not None:
            self.rounds.said[i, turn]["alone_before"] = now.value("step_time.mean")
        self._write("probes.json", self.probed.rows)
        self._write("predictions.json", self._said())
        return fresh, besides

    def _compared(self, i: int, profile: Profile) -> checks.Cell:
        """The cell of a round that was predicted on the machine of ``profile``."""
        known = partial(at_own_speed, self.chosen[i], profile, self.predictions[i])
        try:
            return checks.compare(self.predictions[i], self.measured[i], known, **self.levels[i])
        except ValueError as error:
            scene = self.chosen[i]
            raise ScenarioError("run.seconds", scene.run.seconds, hint=f"({scene.name}): {error}") from error

    # What is kept

    def _cells(self) -> list[checks.Cell]:
        return [self.rounds.mean(i) for i in sorted(self.rounds.had)]

    def _misses(self, cells: Sequence[checks.Cell]) -> list[verdict.Miss]:
        """The cells that missed; how far the probes of rounds that count lay apart, who was beside them."""
        probed = []
        beside: dict[str, list[float | None]] = {"others_busy": [], "stolen": []}
        for i in sorted(self.rounds.had):
            own = [self.rounds.said.get((i, turn), {}) for turn in self.rounds.counted(i)]
            constants = [one["probed"] for one in own if one.get("probed")]
            probed.append([{name: one["value"] for name, one in each.items()} for each in constants])
            for what, found in beside.items():
                found.append(max((one[what] for one in own if one.get(what) is not None), default=None))
        return verdict.misses(cells, probed, beside["others_busy"], beside["stolen"])

    def _figures(self, cells: Sequence[checks.Cell]) -> dict[str, Any]:
        return {
            **checks.summarize(cells),
            "by_level": verdict.by_level(cells),
            "misses": [miss.to_dict() for miss in self._misses(cells)],
            "left_out": [self.left_out[i] for i in sorted(self.left_out)],
            "steadiness": self.probed.steadiness(),
            "minutes": (self.before + time.perf_counter() - self.begun) / 60,
        }

    def _said(self) -> list[dict[str, Any]]:
        return [{"cell": i, **self.rounds.said[i, turn]} for i, turn in sorted(self.rounds.said)]

    def _save(self) -> None:
        """Everything that the finished rounds say."""
        if self.folder is None:
            return
        kept = sorted(self.rounds.had)
        each = [
            {"cell": i, "round": turn, "disturbed": self.rounds.disturbed(i, turn), **one.to_dict()}
            for i in kept
            for turn, one in enumerate(self.rounds.had[i])
        ]
        cells = self._cells()
        self._write("predictions.json", self._said())
        self._write("rounds.json", each)
        self._write("cells.json", [cell.to_dict() for cell in cells])
        self._write("figures.json", self._figures(cells))
        self._put("cells.csv", checks.to_csv(cells))
        self._put("results.md", verdict.markdown(cells))

    def _write(self, name: str, tree: Any) -> None:
        self._put(name, json.dumps(store.plain(tree), indent=1) + "\n")

    def _put(self, name: str, text: str) -> None:
        """Whole or not at all: who is stopped in its midst leaves the former file."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / f".{name}.partial"
            partial.write_text(text, encoding="utf-8")
            partial.replace(self.folder / name)
