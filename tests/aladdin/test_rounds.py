"""A round counts where the machine kept its speed: judged by its own probes, never by what it measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aladdin import rounds, validation
from aladdin.designs import Levels
from aladdin.designs.basic import Basic
from aladdin.hindsight import at_own_speed, stretched
from aladdin.rounds import disturbed, speeds
from aladdin.validation import crosscheck
from analysis import crosscheck as checks
from analysis.calibrate import CalibrationError
from core.record import Record
from scenarios import Scenario
from scenarios.profile import Profile
from sim import simulate
from tests.aladdin.machines import MACHINE, calibrated


def said(before: float | None = None, after: float | None = None) -> dict[str, Any]:
    found = {"alone_before": before, "alone_after": after}
    return {when: seconds for when, seconds in found.items() if seconds is not None}


def test_speeds_are_what_was_probed_before_and_after() -> None:
    assert speeds(said()) == {}
    assert speeds(said(0.03)) == {"before": 0.03}
    assert speeds(said(0.03, 0.04)) == {"before": 0.03, "after": 0.04}


def test_a_round_is_disturbed_by_steps_that_took_unusually_long_before_or_after_it() -> None:
    usual = [said(0.030, 0.031), said(0.0305, 0.0295)]
    assert disturbed(said(0.030, 0.031), usual) == ""
    assert disturbed(said(0.036, 0.030), [*usual, said(0.036, 0.030)]) == (
        "steps alone took 36 ms before it, +19% against the usual"
    )
    assert "after it, -13%" in disturbed(said(0.030, 0.026), [*usual, said(0.030, 0.026)])
    assert disturbed(said(), usual) == ""  # nothing native, nothing to judge by


def test_a_round_is_disturbed_where_the_host_kept_more_of_the_cores_than_usual() -> None:
    usual = [{"stolen": 0.01}, {"stolen": 0.02}, {"stolen": None}, {}]
    bad = {"stolen": 0.12}
    assert disturbed(bad, [*usual, bad]) == "the machine's host kept 12% of the cores that were asked for"
    assert disturbed({"stolen": 0.05}, usual) == ""
    assert disturbed(bad, [{}, {}, {}, bad]) == ""  # as in a check that was begun before this was recorded
    assert disturbed(bad, [bad, {"stolen": 0.1}, {"stolen": 0.11}]) == ""  # that is how this machine is


def test_where_all_probes_scatter_a_round_is_disturbed_by_what_is_unusual_there() -> None:
    wild = [said(0.030, 0.033), said(0.036, 0.028), said(0.031, 0.034), said(0.029, 0.035)]
    assert disturbed(wild[1], wild) == ""
    assert "before it, +56%" in disturbed(said(0.050, 0.031), [*wild, said(0.050, 0.031)])


def test_disturbed_rounds_are_kept_and_told_but_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is twice as slow during the first round of a cell and after it, and well again then."""
    folder, ran = tmp_path / "check", 0
    profile = calibrated()
    slow = False

    def run(scenario: Scenario) -> Record:
        nonlocal ran, slow
        if not scenario.algorithm.name.startswith("core.probes:"):
            ran += 1
            slow = ran == 1
        elif slow and scenario.cluster.workers == 1:
            slow = False
            return simulate(scenario.override({"cluster.compute.mean": 0.04}))
        return simulate(profile.apply(scenario).override({"cluster.compute.mean": 0.04} if slow else {}))

    monkeypatch.setattr(validation, "run_for_real", run)
    monkeypatch.setattr(validation, "calibrate", lambda _, **__: profile)
    design = Basic(algorithms=("asp",), workers=(2,), settings=(("paced", "native"),), length=3.0)
    found = crosscheck(MACHINE, design=design, out=folder)
    rounds = json.loads((folder / "rounds.json").read_text())
    told = [one["disturbed"] for one in rounds if one["cell"] == 0]
    assert "after it" in told[0]
    assert not any(told[1:])
    assert abs(rounds[0]["throughput_error"]) > 0.15
    first = found.cells[0]
    assert first.rounds == len(told) - 1
    assert abs(first.throughput_error) < 0.02


def test_a_cell_whose_only_round_had_not_the_cores_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With paced steps one round is enough, of those that count."""
    ran: list[str] = []

    def run(scenario: Scenario) -> Record:
        ran.append(scenario.algorithm.name)
        record = simulate(scenario.override({"cluster.compute.mean": 0.08} if len(ran) == 2 else {}))
        record.manifest["environment"] = {"stolen": 0.3 if len(ran) == 2 else 0.01}
        return record

    profile = calibrated()
    monkeypatch.setattr(validation, "run_for_real", run)
    monkeypatch.setattr(validation, "calibrate", lambda _, **__: profile)
    design = Basic(
        algorithms=("bsp", "asp", "aladdin"), workers=(2,), slow=(1.0,), settings=(("paced", "paced"),)
    )
    found = crosscheck(MACHINE, design=design, out=tmp_path / "check")
    assert ran == ["bsp", "asp", "aladdin", "asp"]
    rounds = json.loads((tmp_path / "check" / "rounds.json").read_text())
    assert [bool(one["disturbed"]) for one in rounds] == [False, True, False, False]
    assert [cell.rounds for cell in found.cells] == [1, 1, 1]
    assert max(abs(cell.throughput_error) for cell in found.cells) < 0.02
    ran.clear()
    crosscheck(MACHINE, design=replace(design, spare=0))
    assert ran == ["bsp", "asp", "aladdin"]


def test_a_miss_stands_beside_who_had_the_cores_during_the_rounds_that_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All steps take longer than predicted; the host keeps cores during a round, which another replaces."""
    kept, profile = iter([0.02, 0.3, 0.03]), calibrated()

    def run(scenario: Scenario) -> Record:
        record = simulate(scenario.override({"cluster.compute.mean": 0.08}))
        record.manifest["environment"] = {"stolen": next(kept)}
        return record

    monkeypatch.setattr(validation, "run_for_real", run)
    monkeypatch.setattr("aladdin.quiet.busy", lambda: 0.1)
    design = Basic(algorithms=("bsp", "asp"), workers=(2,), slow=(1.0,), settings=(("paced", "paced"),))
    found = crosscheck(MACHINE, profile=profile, design=design)
    beside = {miss.cell[0]: (miss.others, miss.stolen, miss.rounds) for miss in found.misses}
    assert beside == {"bsp": (0.1, 0.02, 1), "asp": (0.1, 0.03, 1)}


def test_lengths_are_estimated_by_our_own_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for how long to run the cell; then for the prediction, and twice by simpler models."""
    ran: list[Scenario] = []

    def run(scenario: Scenario) -> Record:
        ran.append(scenario)
        return simulate(scenario)

    monkeypatch.setattr("sim.simulate", run)
    monkeypatch.setattr(validation, "run_for_real", simulate)
    design = Basic(algorithms=("asp",), workers=(2,), slow=(1.0,), settings=(("paced", "paced"),))
    crosscheck(MACHINE, profile=calibrated(), design=design)
    assert len(ran) == 1 + 3, "nothing is drawn: its paced steps are all alike, on processors of their own"


def test_of_several_probes_before_a_round_each_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In doubt is what none could measure; a probe that failed twice is one of them, not all."""
    failure = CalibrationError("too few steps")
    known = Profile({}, notes={"doubts": {"step_time.cold": "wide"}})
    first, last_one = {"beside": "disturbed", "ring": "lost"}, {"ring": "late"}
    found: list[Any] = [first, failure, failure, {"ring": "lost"}, last_one]

    def refresh(profile: Profile, *_: Any, small: bool) -> Profile:
        said = found.pop(0)
        if said is failure:
            raise failure
        return replace(profile, notes={"doubts": {**profile.notes["doubts"], **said}, "turn": len(found)})

    kept: list[bool] = []

    def keep(now: Profile, small: bool) -> Profile:
        kept.append(small)
        return now

    monkeypatch.setattr(rounds, "refresh", refresh)
    fresh, last, flags = rounds.probed(known, MACHINE, simulate, [True] * 4, keep)
    assert kept == [True, False, True, True]
    assert last is not None
    assert last.notes["turn"] == 0
    assert fresh.notes["doubts"] == {"step_time.cold": "wide", "ring": "late"}
    assert flags == (
        "1 of 4 probes before its run failed: too few steps",
        "1 of 4 probes of beside before its run said nothing: disturbed",
    )
    found += [failure] * 4
    assert rounds.probed(known, MACHINE, simulate, [True] * 2, keep) == (
        known, None, ("not probed anew before its run, constants of former probes stand: too few steps",)
    )  # fmt: skip


@dataclass(frozen=True)
class Sound(Basic):
    """A design that says itself which cells have faults: none."""

    def scenario(self, base: Scenario, cell: Levels) -> Scenario:
        return super().scenario(base.override({"faults": []}), cell)


def test_probes_before_a_round_heed_no_faults_of_the_scenario_that_the_design_replaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = calibrated()
    monkeypatch.setattr(validation, "run_for_real", lambda scene: simulate(profile.apply(scene)))
    monkeypatch.setattr(validation, "calibrate", lambda _, **__: profile)
    design = Sound(algorithms=("asp",), workers=(2,), settings=(("paced", "native"),), length=3.0)
    faulty = MACHINE.override({"cluster.workers": 4, "faults": [{"kind": "crash", "ranks": [3], "step": 9}]})
    assert crosscheck(faulty, design=design).cells


def noisy(profile: Profile) -> Profile:
    """A machine whose native steps scatter."""
    spread = replace(profile.constants["step_time.mean"], value=0.3, low=0.3, high=0.3, unit="1")
    known = {**profile.constants, "step_time.spread": spread}
    return replace(profile, step_time_model="lognormal", constants=known)


def test_a_prediction_is_the_mean_of_draws_that_only_differ_in_what_no_run_repeats() -> None:
    scene = MACHINE.override({"run.compute": "native", "run.seconds": 4.0, "algorithm.name": "bsp"})
    each = [checks.predict(one).throughput for one in rounds.draws(scene, noisy(calibrated()))]
    assert len(set(each)) == rounds.DRAWS
    record, said = rounds.foretell(scene, noisy(calibrated()))
    assert checks.predict(record).throughput == each[0]
    assert said.throughput == pytest.approx(sum(each) / len(each))
    assert (said.draws, said.spread) == (rounds.DRAWS, pytest.approx(np.std(each, ddof=1) / np.mean(each)))


def test_what_both_drivers_draw_alike_is_the_same_in_every_draw() -> None:
    """Paced steps, and slow-downs of native ones: the real run has just those."""
    tails = [{"kind": "heavy_tailed", "ranks": [1], "shape": 2.0}]
    scene = MACHINE.override({"cluster.compute": {"model": "lognormal", "mean": 0.05, "spread": 0.5}})
    scene = scene.override({"cluster.slowdowns": tails, "run.steps": 70, "run.seconds": 0.0})
    paced = [simulate(scene.override({"cluster.host.draw": draw})) for draw in (0, 1)]
    assert np.array_equal(paced[0].steps["compute"], paced[1].steps["compute"])
    factors = []
    for draw in (0, 1):
        native = scene.override({"run.compute": "native", "cluster.host.draw": draw})
        times = [
            simulate(one).steps["compute"] for one in (native, native.override({"cluster.slowdowns": []}))
        ]
        factors.append([np.asarray(one) for one in times])
    assert not np.array_equal(factors[0][1], factors[1][1])
    slowed = [own[0].max() / own[1].max() for own in factors]
    assert min(slowed) > 1.5


@pytest.mark.parametrize("truth", [0.8, 1.0, 1.25])
@pytest.mark.parametrize("algorithm", ["bsp", "asp"])
def test_hindsight_finds_how_much_slower_the_machine_was(algorithm: str, truth: float) -> None:
    """The run is one of the same model on a machine whose steps take ``truth`` times as long."""
    profile = calibrated()
    scene = MACHINE.override({"run.compute": "native", "run.seconds": 8.0, "algorithm.name": algorithm})
    measured = checks.predict(rounds.draws(scene, stretched(profile, truth)))
    _, said = rounds.foretell(scene, profile)
    known = at_own_speed(scene, profile, said, measured.parts["compute"])
    assert known is not None
    assert known.stretch == pytest.approx(truth, rel=0.02)
    assert known.throughput == pytest.approx(measured.throughput, rel=0.02)


def test_hindsight_says_nothing_of_paced_steps_or_of_what_no_speed_explains() -> None:
    profile, scene = calibrated(), MACHINE.override({"run.seconds": 4.0})
    _, said = rounds.foretell(scene, profile)
    assert at_own_speed(scene, profile, said, said.parts["compute"]) is None
    native = scene.override({"run.compute": "native"})
    _, said = rounds.foretell(native, profile)
    assert at_own_speed(native, profile, said, 4 * said.parts["compute"]) is None
    assert at_own_speed(native, profile, said, 0.0) is None
