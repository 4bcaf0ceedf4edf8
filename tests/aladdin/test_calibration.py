"""Probes, fits and cross-checks: a profile fitted to simulated probes gives back what was simulated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import scenarios
from aladdin import rounds as rounds_of_checks
from aladdin import validation
from aladdin.calibration import calibrate
from aladdin.designs.basic import Basic
from analysis.calibrate import (
    CalibrationError,
    at_most,
    fit_beside,
    fit_cold,
    fit_links,
    fit_slots,
    fit_steps,
)
from core.probes import TURN
from core.record import Record
from scenarios import ScenarioError
from scenarios.profile import Constant, Profile
from sim import simulate

TRUTH = {
    "cluster.latency": "400 us",
    "cluster.network.overhead": "100 us",
    "cluster.tensor_rates": {
        "apply": 3e9, "accumulate": 5e9, "mix": 4e9, "assign": 6e9, "scale": 8e9, "snapshot": 7e9,
    },
    "cluster.compute.mean": "20 ms",
    "cluster.workers_per_device": 4,
    "cluster.device_slots": 2.0,
    "cluster.network.allreduce_alpha": "1 ms",
    "cluster.network.allreduce_bandwidth": "500 MB/s",
}  # fmt: skip


def test_simulated_probes_give_back_the_constants_that_were_simulated() -> None:
    profile = calibrate(scenarios.load("demo", TRUTH), run=simulate)
    expected = {
        "step_time.mean": 0.02,
        "device.slots": 2.0,
        "link.native.latency": 4e-4,
        "link.native.overhead": 1e-4,
        "link.native.bandwidth": 125e6, "link.paced.efficiency": 1.0, "allreduce.alpha.4": 1e-3,
        "allreduce.bandwidth.4": 5e8, "allreduce.alpha.2": 1e-3, "allreduce.bandwidth.2": 5e8,
        "tensor_rate.apply": 3e9, "tensor_rate.snapshot": 7e9,
    }  # fmt: skip
    for name, value in expected.items():
        constant = profile.constants[name]
        assert constant.value == pytest.approx(value, rel=1e-6), name
        assert constant.low <= constant.value <= constant.high


def test_a_calibrated_prediction_equals_the_simulated_truth() -> None:
    """Probes of a cluster, applied to a scenario that knows nothing of it, predict that cluster."""
    truth = {k: v for k, v in TRUTH.items() if "device" not in k} | {"cluster.workers_per_device": 1}
    machine = scenarios.load("demo", truth)
    profile = calibrate(machine, run=simulate)
    blank = scenarios.load("demo", {"cluster.latency": 0.0, "run.compute": "native", "algorithm.name": "asp"})
    predicted = simulate(profile.apply(blank))
    actual = simulate(scenarios.load("demo", {**truth, "algorithm.name": "asp", "run.compute": "native"}))
    np.testing.assert_allclose(predicted.steps["end"], actual.steps["end"], rtol=1e-6)


@pytest.mark.parametrize("model", ["lognormal", "gamma", "shifted_exponential"])
def test_the_right_distribution_of_step_times_is_found(model: str) -> None:
    compute = {"model": model, "mean": 0.05, "spread": 0.5}
    one = {"cluster.compute": compute, "cluster.workers": 1, "run.steps": 3000}
    one["algorithm.name"] = "core.probes:StepProbe"
    fit, constants = fit_steps(simulate(scenarios.load("demo", one)), "step_time")
    assert fit.model == model
    assert fit.p > 0.01
    assert constants["step_time.mean"].value == pytest.approx(0.05, rel=0.05)
    assert constants["step_time.spread"].value == pytest.approx(0.5, rel=0.1)


def test_slots_may_exceed_the_workers_that_were_probed_by_chance_and_are_cut_off_there() -> None:
    alone, full = Constant(0.01, "s", 0.009, 0.011), Constant(0.008, "s", 0.007, 0.009)
    found = fit_slots(alone, full, 4)
    assert found.value == pytest.approx(5.0)
    assert at_most(found, 4.0).value == at_most(found, 4.0).high == 4.0
    assert at_most(found, 4.0).low == pytest.approx(4.0)
    assert at_most(found, 6.0).value == found.value


@pytest.mark.parametrize("n", [1, 2, 4])
def test_what_messages_cost_the_steps_beside_them_is_found_again(n: int) -> None:
    """On two simulated cores, of which one is free for messages where one computes; nothing costs nothing."""
    options = {"repeats": 2, "phase": 6}
    fields = {"algorithm.name": "core.probes:BesideProbe", "algorithm.options": options}
    fields |= {"run.compute": "native", "run.links": "paced", "cluster.workers": n + 2, "run.steps": 48}
    base = scenarios.load("demo", {**TRUTH, "cluster.workers_per_device": 1, **fields})

    def simulated(cost: float) -> Record:
        return simulate(base.override({"cluster.host": {"cores": 2.0, "byte_cost": cost}}))

    found = fit_beside(simulated(1.7e-9), simulated, 6)
    chance = 0.1 if n > 2 else 0.02  # which core is shared is drawn
    assert found.value == pytest.approx(1.7e-9, rel=chance)
    assert found.low <= found.value <= found.high
    assert fit_beside(simulated(0.0), simulated, 6).value == 0.0
    dear, cheap = simulated(1.7e-9).steps["compute"].mean(), simulated(0.0).steps["compute"].mean()
    assert dear > 1.02 * cheap


def relayed(cold: float, **host: float) -> Record:
    """A relay on two simulated cores with such a cost of pauses."""
    machine = {**TRUTH, "cluster.workers_per_device": 1, "cluster.workers": 2, "run.compute": "native"}
    fields = {"algorithm.name": "core.probes:RelayProbe", "algorithm.options": {"repeats": 2, "part": 0.5}}
    own = {"cluster.host": {"cores": 2.0, "cold": cold, "pause": 0.06, **host}}
    return simulate(
        scenarios.load("demo", {**machine, **fields, **own, "run.steps": 24, "run.links": "paced"})
    )


@pytest.mark.parametrize("cold", [0.0, 2e-3])
def test_what_pauses_cost_the_steps_after_them_is_found_again(cold: float) -> None:
    """What the message beside them costs them is none of it."""
    found = fit_cold(relayed(cold, byte_cost=2e-9), lambda cost: relayed(cost, byte_cost=2e-9), 0.02)
    assert found.value == pytest.approx(cold, abs=2e-5)
    assert found.low <= found.value <= found.high


def test_what_chance_makes_cheaper_than_nothing_costs_nothing() -> None:
    """A single probe may say less than zero, so that the mean of several is right; a prediction does not."""
    measured = relayed(0.0)
    measured.steps["compute"][measured.steps["step"] % TURN == 0] -= 1e-3
    cold = fit_cold(measured, relayed, 0.02)
    assert cold.value == pytest.approx(-1e-3, rel=0.1)
    assert cold.low <= cold.value <= cold.high
    alone, cost = Constant(0.02, "s", 0.019, 0.021), Constant(1e-9, "s", 1e-9, 1e-9)
    slots = Constant(2.0, "1", 2.0, 2.0)
    known = {"step_time.mean": alone, "step_time.cold": cold, "device.slots": slots}
    profile = Profile(known | {"host.paced.byte_cost": cost})
    native = scenarios.load("demo", {"run.compute": "native", "run.links": "paced"})
    host = profile.apply(native).cluster.host
    assert (host.cold, host.pause) == (0.0, 3 * 0.02)


def test_a_relay_too_short_to_say_anything_is_refused() -> None:
    short = relayed(0.0)
    few = replace(short, steps={name: column[:10] for name, column in short.steps.items()})
    with pytest.raises(CalibrationError, match=r"steps after a pause and .* are too few; at least 5 of each"):
        fit_cold(few, relayed, 0.02)
    with pytest.raises(CalibrationError, match="in its simulation pauses cost nothing"):
        fit_cold(short, lambda _: relayed(0.0), 0.02)


def test_probes_without_measurements_are_refused() -> None:
    empty = Record(
        {},
        {},
        {name: np.zeros(0) for name in ("node", "step", "start", "end", "compute")},
        observations={name: np.zeros(0) for name in ("node", "kind", "bytes", "seconds")},
    )
    with pytest.raises(CalibrationError, match="too few"):
        fit_steps(empty, "step_time")
    with pytest.raises(CalibrationError, match="link probe"):
        fit_links(empty, "link")
    with pytest.raises(CalibrationError, match=r"beside messages: 0 silent steps .* are too few"):
        fit_beside(empty, lambda _: empty, 8)
    with pytest.raises(CalibrationError, match=r"after pauses: 0 steps .* are too few"):
        fit_cold(empty, lambda _: empty, 0.02)


def test_a_profile_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("mine")
    with pytest.raises(ScenarioError, match="never overwritten"):
        calibrate("demo", out=tmp_path / "profile.json", run=simulate)
    assert (tmp_path / "profile.json").read_text() == "mine"


def test_predictions_are_on_disk_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs on the simulator in the place of the real driver: then every error is zero."""
    folder = tmp_path / "check"
    profile = calibrate(scenarios.load("demo", {**TRUTH, "cluster.workers_per_device": 1}), run=simulate)

    def run(scenario: scenarios.Scenario) -> Record:
        said = json.loads((folder / "predictions.json").read_text())
        assert len(said) == 8
        return simulate(profile.apply(scenario))

    monkeypatch.setattr(validation, "run_for_real", run)
    design = Basic(workers=(4,), settings=(("paced", "paced"),), length=4.0)
    found = validation.crosscheck("demo", profile=profile, design=design, out=folder)
    assert [cell.throughput_error for cell in found.cells] == [0.0] * 8
    assert found.figures["rankings_wrong"] == []
    assert {path.name for path in folder.iterdir()} == {
        "plan.json",
        "results.md",
        "profile-paced.json",
        "predictions.json",
        "rounds.json",
        "cells.json",
        "cells.csv",
        "figures.json",
        "predicted_vs_measured.png",
    }  # fmt: skip
    (asp,) = [cell for cell in found.cells if cell.algorithm == "asp" and cell.slow == 1]
    assert asp.contention > 0.9
    assert asp.simpler_errors["no_queueing"] > 0.1


def test_cells_with_native_steps_are_predicted_and_run_in_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run has its own prediction, written before it; the cell has the means of both."""
    folder, speeds = tmp_path / "check", iter((0.04, 0.05, 0.06))
    asked: list[int] = []

    def run(scenario: scenarios.Scenario) -> Record:
        if scenario.name.startswith("probe/"):
            return simulate(scenario)
        said = json.loads((folder / "predictions.json").read_text())
        asked.append(len([one for one in said if "probed" in one]))
        return simulate(
            scenario.override({"cluster.compute.mean": next(speeds), "cluster.compute.spread": 0})
        )

    monkeypatch.setattr(validation, "run_for_real", run)
    monkeypatch.setattr("aladdin.calibration.run_for_real", run)
    design = Basic(
        algorithms=("aladdin",),
        workers=(2,),
        slow=(1.0,),
        settings=(("paced", "native"),),
        batches={},
        length=4.0,
        repeats={("paced", "native"): 3},
        further=0,
    )
    (cell,) = validation.crosscheck("demo", design=design, out=folder, overrides=TRUTH).cells
    assert asked == [1, 2, 3]
    rounds = json.loads((folder / "rounds.json").read_text())
    measured = [one["measured"] for one in rounds]
    assert len(rounds) == cell.rounds == 3
    assert cell.measured == pytest.approx(sum(measured) / 3)
    assert len(set(measured)) == 3
    assert cell.low < min(measured) < max(measured) < cell.high
    assert cell.throughput_error == pytest.approx(cell.predicted / cell.measured - 1)


@pytest.mark.parametrize(("failures", "flagged"), [(1, 0), (2, 1), (6, 3)])
def test_a_check_goes_on_where_probes_before_a_run_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, flagged: int
) -> None:
    """They are run again; where they fail again the cell's prediction is the calibration's, and says so."""
    monkeypatch.setattr("aladdin.probed.FIRST", 1)
    profile = calibrate(scenarios.load("demo", TRUTH | {"cluster.workers": 2}), run=simulate, budget=1e-3)
    tries: list[str] = []

    def fail(known: Profile, scenario: scenarios.Scenario, run: object, small: bool) -> Profile:
        tries.append(scenario.name)
        if len(tries) <= failures:
            raise CalibrationError("step probe: 1 steps after warm-up are too few")
        return known

    monkeypatch.setattr(validation, "calibrate", lambda *_, **__: profile)
    monkeypatch.setattr(rounds_of_checks, "refresh", fail)
    monkeypatch.setattr(validation, "run_for_real", lambda scene: simulate(profile.apply(scene)))
    design = Basic(
        algorithms=("aladdin",), workers=(2,), slow=(1.0,), settings=(("paced", "native"),), batches={},
        length=4.0, repeats={("paced", "native"): 3},
    )  # fmt: skip
    found = validation.crosscheck("demo", design=design, out=tmp_path / "check", overrides=TRUTH)
    rounds = json.loads((tmp_path / "check" / "rounds.json").read_text())
    doubts = [[flag for flag in one["flags"] if "not probed anew" in flag] for one in rounds]
    assert [len(flags) for flags in doubts] == [1] * flagged + [0] * (3 - flagged)
    assert all("1 steps after warm-up are too few" in flag for flags in doubts for flag in flags)
    probes = json.loads((tmp_path / "check" / "probes.json").read_text())
    assert sum(row["small"] for row in probes) == 3 - flagged, "what failed is probed another time"
    assert found.cells[0].rounds == 3
    assert any("not probed anew" in flag for flag in found.cells[0].flags) == bool(flagged)


def test_a_check_goes_on_with_the_profile_that_it_was_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "check"
    profile = calibrate(scenarios.load("demo", TRUTH | {"cluster.workers": 2}), run=simulate, budget=1e-3)
    monkeypatch.setattr(validation, "run_for_real", lambda scene: simulate(profile.apply(scene)))
    design = Basic(
        algorithms=("asp",), workers=(2,), slow=(1.0,), settings=(("paced", "native"),), batches={},
        length=4.0,
    )  # fmt: skip

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validation.crosscheck("demo", profile=profile, design=design, out=folder, on_plan=stop)
    found = validation.crosscheck("demo", design=design, out=folder, resume=True)
    assert [cell.throughput_error for cell in found.cells] == [0.0]
    assert not any("probed" in one for one in json.loads((folder / "predictions.json").read_text()))
    (folder / "profile-paced.json").unlink()
    with pytest.raises(ScenarioError, match=r"it was begun: profile-paced\.json is not in"):
        validation.crosscheck("demo", design=design, out=folder, resume=True)


def test_a_check_that_probes_does_not_go_on_with_a_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = calibrate(scenarios.load("demo", {"cluster.workers": 2}), run=simulate, budget=1e-3)
    monkeypatch.setattr(validation, "calibrate", lambda *_, **__: profile)
    design = Basic(algorithms=("asp",), workers=(2,), slow=(1.0,), settings=(("paced", "paced"),))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validation.crosscheck("demo", design=design, out=tmp_path / "check", on_plan=stop)
    with pytest.raises(ScenarioError, match="begun without a profile"):
        validation.crosscheck("demo", profile=profile, design=design, out=tmp_path / "check", resume=True)


def test_a_prediction_is_compared_part_by_part() -> None:
    """A measurement that is 10 % slower shows as an error of +10 %, in the part that is slower."""
    fast = scenarios.load("demo", {"algorithm.name": "aladdin", "cluster.compute.mean": 0.05})
    slow = scenarios.load("demo", {"algorithm.name": "aladdin", "cluster.compute.mean": 0.055})
    cell = validation.checks.compare(
        validation.checks.predict(simulate(fast)),
        simulate(slow),
        algorithm="aladdin",
        n=4,
        slow=1.0,
        links="paced",
        compute="paced",
    )
    assert cell.throughput_error == pytest.approx(0.1, rel=1e-6)
    assert cell.part_errors["compute"] == pytest.approx(-0.005 / 0.055, rel=1e-6)
    assert cell.part_errors["wait"] == 0.0
