"""Repetitions, budgets and pictures of calibrations; shaped links; checks that go on where they stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import scenarios
from aladdin import validation
from aladdin.calibration import MOST, calibrate
from aladdin.designs.basic import Basic
from aladdin.designs.fraction import Fraction
from aladdin.pooling import LATEST, pooled
from aladdin.probe import Learned
from aladdin.probing import alike, nominal, probes, refreshing
from aladdin.reprobing import refresh
from aladdin.running import Runner
from aladdin.validation import crosscheck
from analysis.calibrate import CalibrationError, fit_carried, fit_links
from core.record import Record
from scenarios import Scenario, ScenarioError
from scenarios.profile import Constant, Profile
from sim import simulate
from tests.aladdin.machines import MACHINE, calibrated


def test_a_disturbed_probe_is_repeated_and_outvoted() -> None:
    """The second of the steps of one worker takes twice as long: a third decides."""
    ran: list[str] = []

    def run(scenario: Scenario) -> Record:
        ran.append(scenario.algorithm.name)
        alone = scenario.algorithm.name.endswith("StepProbe") and scenario.cluster.workers == 1
        count = len([1 for name in ran if name == "alone"])
        if alone and scenario.run.compute == "native":
            ran.append("alone")
            return simulate(scenario.override({"cluster.compute.mean": 0.04 if count == 1 else 0.02}))
        return simulate(scenario)

    profile = calibrate(MACHINE, run=run)
    assert profile.constants["step_time.mean"].value == pytest.approx(0.02)
    assert "outvoted" in profile.constants["step_time.mean"].note
    assert "step_time.mean" not in profile.notes["doubts"]
    assert profile.notes["repetitions"]["steps of one worker"] == 3


def test_a_probe_that_had_not_the_cores_for_itself_does_not_count_where_another_had() -> None:
    """The first of the steps of one worker; and all of its tensor operations, which is told."""
    ran: list[str] = []

    def run(scenario: Scenario) -> Record:
        name = scenario.algorithm.name.partition(":")[2]
        ran.append(name)
        alone = name == "StepProbe" and scenario.cluster.workers == 1 and scenario.run.compute == "native"
        first = alone and ran.count("StepProbe") == 1
        record = simulate(scenario.override({"cluster.compute.mean": 0.04 if first else 0.02}))
        record.manifest["environment"] = {"stolen": 0.2 if first or name == "TensorProbe" else 0.0}
        return record

    profile = calibrate(MACHINE, run=run)
    assert profile.constants["step_time.mean"].value == pytest.approx(0.02)
    assert "outvoted" not in profile.constants["step_time.mean"].note
    assert profile.notes["stolen"]["steps of one worker"][:2] == [0.2, 0.0]
    assert profile.notes["repetitions"]["tensor operations"] > 2
    kept = f"during 1 of {len(profile.notes['repetitions'])} probes"
    assert kept in profile.notes["doubts"]["the whole profile"]


def test_a_repetition_that_failed_does_not_outvote_one_beside_a_busy_host() -> None:
    """The first run over paced links is beside a busy host, all others are too odd to be fitted."""
    ran = 0

    def run(scenario: Scenario) -> Record:
        nonlocal ran
        record = simulate(scenario)
        paced = scenario.algorithm.name.endswith("LinkProbe") and scenario.run.links == "paced"
        ran += paced
        if paced and ran > 1:
            record.observations["seconds"][:] = 1.0
        record.manifest["environment"] = {"stolen": 0.3 if paced and ran == 1 else 0.0}
        return record

    profile = calibrate(MACHINE, run=run)
    assert ran > 2
    assert profile.value("link.paced.bandwidth") == pytest.approx(125e6, rel=0.05)


def test_what_stays_in_doubt_is_told_with_every_prediction() -> None:
    speeds = iter(0.01 * 2**i for i in range(100))

    def run(scenario: Scenario) -> Record:
        alone = scenario.algorithm.name.endswith("StepProbe") and scenario.cluster.workers == 1
        if alone and scenario.run.compute == "native":
            return simulate(scenario.override({"cluster.compute.mean": next(speeds)}))
        return simulate(scenario)

    profile = calibrate(MACHINE, run=run)
    assert profile.notes["repetitions"]["steps of one worker"] == MOST
    assert "times as wide as it may be" in profile.notes["doubts"]["step_time.mean"]
    assert any("step_time.mean" in flag for flag in profile.warnings(MACHINE))
    assert Profile.from_dict(profile.to_dict()) == profile


@pytest.mark.parametrize("seconds", [0.03, 0.09])
def test_steps_that_cannot_keep_pace_say_nothing_of_pacing(seconds: float) -> None:
    """Steps are to last 50 ms; paced ones take 90 ms. Where gradients alone last too long none is run."""
    paced = []

    def run(scenario: Scenario) -> Record:
        late = scenario.run.compute == "paced"
        paced.extend([scenario] if late else [])
        return simulate(scenario.override({"cluster.compute.mean": 0.09 if late else seconds}))

    profile = calibrate(MACHINE.override({"cluster.compute.mean": 0.05}), run=run, links=("paced",))
    assert "pacing.overhead" not in profile.constants
    why = "gradients did not end in time" if seconds < 0.05 else "a gradient takes 0.09 s, too long for steps"
    assert why in profile.notes["doubts"]["paced steps"]
    assert profile.notes["repetitions"]["paced steps"] == MOST
    assert len(paced) == (MOST if seconds < 0.05 else 0)


def test_pace_is_probed_with_as_many_workers_as_keep_it() -> None:
    """Gradients of 15 ms, two processors: eight workers' gradients take 60 ms, four workers' 30 ms."""
    paced = []

    def run(scenario: Scenario) -> Record:
        native = {"cluster.compute.mean": 0.015, "cluster.workers_per_device": 8, "cluster.device_slots": 2.0}
        if scenario.run.compute == "paced":
            paced.append(scenario.cluster.workers)
        return simulate(scenario if scenario.run.compute == "paced" else scenario.override(native))

    base = MACHINE.override({"cluster.compute.mean": 0.05, "cluster.workers_per_device": 1})
    profile = calibrate(base, run=run, links=("paced",), workers=(2, 4, 8), budget=1e-3)
    assert paced == [4]
    assert profile.constants["pacing.overhead"].value == pytest.approx(0.0, abs=1e-9)


def test_a_repetition_that_cannot_be_fitted_leaves_the_first() -> None:
    """The second of the steps of one worker breaks off after three; a first one that does says so."""

    def run_with(least: int) -> Runner:
        ran = 0

        def run(scenario: Scenario) -> Record:
            nonlocal ran
            alone = scenario.algorithm.name.endswith("StepProbe") and scenario.cluster.workers == 1
            ran += alone
            return simulate(scenario.override({"run.steps": 3}) if alone and ran > least else scenario)

        return run

    profile = calibrate(MACHINE, run=run_with(1))
    assert profile.constants["step_time.mean"].value == pytest.approx(0.02)
    assert profile.notes["repetitions"]["steps of one worker"] == 2
    with pytest.raises(CalibrationError, match="step probe: 2 steps after warm-up are too few"):
        calibrate(MACHINE, run=run_with(0))


def test_a_refreshed_probe_that_says_nothing_is_a_flag_of_the_prediction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = calibrated()
    monkeypatch.setattr("aladdin.prices.hardware", lambda: {"cores": 2})
    native = MACHINE.override({"run.compute": "native", "run.links": "paced"})
    cost = Constant(1e-9, "s", 1e-9, 1e-9)
    known = {**profile.constants, "host.paced.byte_cost": cost, "host.paced.beside.1": cost}

    def run(scenario: Scenario) -> Record:
        record = simulate(scenario)
        if scenario.algorithm.name.endswith("BesideProbe"):
            phase = scenario.algorithm.options["phase"]
            record.steps["compute"][record.steps["step"] // phase % 2 == 1] *= 60.0
        return record

    fresh = refresh(replace(profile, constants=known), native, run)
    assert not any(name.startswith("host.paced.beside") for name in fresh.constants)
    assert "disturbed" in fresh.notes["doubts"]["steps of 1 beside messages over paced links"]
    assert any("steps of 1 beside messages over paced links" in flag for flag in fresh.warnings(native))
    assert not any("beside messages" in flag for flag in refresh(profile, native, simulate).warnings(native))


def test_a_probe_before_a_round_runs_until_it_has_the_cores_for_itself_but_thrice_at_most() -> None:
    """Native links are as slow as the host lets them be."""
    native = MACHINE.override({"run.compute": "paced", "run.links": "native"})
    profile = calibrated()
    profile = replace(profile, notes={**profile.notes, "stolen": {"native links": [0.0, None, 0.3]}})

    def bandwidth(*stolen: float) -> tuple[float, int]:
        left = list(stolen)

        def run(scenario: Scenario) -> Record:
            share = left.pop(0)
            record = simulate(scenario.override({"cluster.bandwidth": 1e9 * (1 - share)}))
            record.manifest["environment"] = {"stolen": share}
            return record

        return refresh(profile, native, run).value("link.native.bandwidth"), len(stolen) - len(left)

    assert bandwidth(0.01, 0.0) == (pytest.approx(0.99e9, rel=0.01), 1)
    assert bandwidth(0.5, 0.02, 0.0) == (pytest.approx(0.98e9, rel=0.01), 2)
    assert bandwidth(0.5, 0.3, 0.4, 0.0) == (pytest.approx(0.7e9, rel=0.01), 3)


@pytest.mark.parametrize("small", [True, False])
def test_what_is_probed_for_one_worker_says_how_many_the_device_serves(small: bool) -> None:
    """Without it the prediction would know nothing of the host that plays the worker and the server."""
    alone = MACHINE.override({"run.compute": "native", "run.links": "paced", "cluster.workers": 1})
    fresh = refresh(calibrated(), alone, simulate, small=small)
    assert {"device.slots", "device.slots.2"} <= fresh.constants.keys()


def test_what_scatters_is_taken_from_all_probes_what_drifts_from_the_latest_the_rest_from_the_last() -> None:
    def one(step: float, beside: float) -> Profile:
        values = {
            "step_time.mean": step, "link.native.overhead": step, "link.paced.bandwidth": 1 / step,
            "host.paced.beside.2": beside, "host.paced.beside.4": 2 * beside,
        }  # fmt: skip
        return Profile({name: Constant(value, "s", value, value) for name, value in values.items()})

    found = pooled([one(0.03, 1e-9), one(0.04, 2e-9)])
    assert found.value("link.paced.bandwidth") == 25.0
    assert found.value("step_time.mean") == found.value("link.native.overhead") == pytest.approx(0.035)
    drifted = pooled([one(0.03, 1e-9)] * 3 + [one(0.04, 1e-9), one(0.05, 1e-9)] * (LATEST // 2))
    assert drifted.value("step_time.mean") == pytest.approx(0.045)
    assert drifted.value("host.paced.beside.2") == pytest.approx(1e-9)
    assert found.value("host.paced.beside.2") == pytest.approx(1.5e-9)
    assert found.constants["host.paced.beside.4"].high == pytest.approx(4e-9)
    lost = replace(one(0.05, 3e-9), constants={"step_time.mean": Constant(0.05, "s", 0.05, 0.05)})
    assert pooled([one(0.03, 1e-9), lost]).value("host.paced.beside.2") == 1e-9


def test_what_was_not_probed_anew_is_no_vote_against_what_was() -> None:
    """Rounds with paced steps, and rounds whose probes failed, keep the calibration's constants."""

    def one(beside: float) -> Profile:
        return Profile({"host.paced.beside.2": Constant(beside, "s", beside, beside)})

    first = one(1e-9)
    kept = replace(first, constants={**first.constants, "step_time.mean": Constant(0.03, "s", 0.03, 0.03)})
    found = pooled([first, kept, first, one(2e-9)])
    assert found.value("host.paced.beside.2") == pytest.approx(1.5e-9)


def test_a_small_budget_leaves_one_repetition() -> None:
    profile = calibrated()
    repetitions = dict(profile.notes["repetitions"])
    spared = [what for what, count in repetitions.items() if count == 0]
    assert all("over slow paced links" in what for what in spared)
    assert {repetitions[what] for what in repetitions if what not in spared} == {1}
    assert len(spared) == 1
    with pytest.raises(ScenarioError, match="budget: 0 is not valid; expected a finite time"):
        calibrate(MACHINE, run=simulate, budget=0)


def links_of(base: Scenario, share: float = 2.5) -> tuple[Scenario, Scenario]:
    """The probes of paced links, and of slow ones."""
    (links,) = [probe for probe in probes(base, [2], ["paced"]) if probe.what == "paced links"]
    one, slow = links.scenarios(Profile({}), share)
    return one, slow


def test_probes_of_large_messages_are_shorter() -> None:
    def repeats(hidden: int) -> int:
        one, slow = links_of(MACHINE.override({"workload.hidden": [hidden, hidden]}))
        assert slow.cluster.machines[0].up == one.cluster.machines[0].up / 5
        return int(one.algorithm.options["repeats"])

    assert repeats(2200) < repeats(960) <= 8
    assert repeats(2200) >= 2


@pytest.mark.parametrize("rate", ["1 Mbit/s", "100 Mbit/s", "1 Gbit/s"])
def test_however_slow_links_are_their_probes_end(rate: str) -> None:
    """Messages are cut to what moves in a fifth of a second; constants come out the same."""
    base = MACHINE.override({"cluster.bandwidth": rate, "workload.hidden": [960, 960]})
    for scene in links_of(base):
        assert simulate(scene).duration < 5
    profile = calibrate(base, run=simulate, links=("paced",), budget=1e-3)
    assert profile.constants["link.paced.bandwidth"].value == pytest.approx(nominal(base), rel=1e-3)
    assert profile.constants["link.paced.latency"].value == pytest.approx(4e-4, rel=0.01)
    largest = profile.ranges["message_bytes"][1]
    assert largest == pytest.approx(nominal(base) / 5 if rate != "1 Gbit/s" else 4 * 994_570, rel=0.01)


def test_links_of_any_kind_give_constants_of_that_kind() -> None:
    """What emulates links is the runner's business: names, units and predictions follow ``run.links``."""
    profile = calibrate(MACHINE, links=("paced",), run=simulate)
    assert {name.split(".")[1] for name in profile.constants if name.startswith("link.")} == {"paced"}
    shaped = {name.replace(".paced", ".shaped"): one for name, one in profile.constants.items()}
    found = Profile.from_dict(replace(profile, constants=shaped).to_dict())
    assert found.constants.keys() == shaped.keys()
    assert any("no paced links, only shaped ones" in flag for flag in found.warnings(MACHINE))
    assert "links: shaped" in found.covers()
    assert "link rate: 200 Mbit/s to 1000 Mbit/s" in found.covers()


def test_what_steps_lose_to_messages_is_found_again_where_a_core_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a simulated host whose steps lose three times the processor time of messages, if they lack room."""
    monkeypatch.setattr("aladdin.prices.hardware", lambda: {"cores": 4})
    truth = {"cores": 4.0, "byte_cost": 1.5e-9, "moving": 0.06}
    base = MACHINE.override({"run.compute": "native", "run.links": "paced", "cluster.host": truth})
    known = {"device.slots": Constant(2.0, "1", 2.0, 2.0), "step_time.mean": Constant(0.02, "s", 0.02, 0.02)}
    for rate, name in ((nominal(base), "byte_cost"), (nominal(base) / 5, "byte_cost.slow")):
        third = (1.5e-9 + 0.06 / rate) / 3  # what processor time alone says
        known[f"host.paced.{name}"] = Constant(third, "s", third, third)
    ranges = {"link_rate": (nominal(base) / 5, nominal(base))}
    profile = Profile(known, hardware={"cores": 4}, ranges=ranges)
    found: dict[str, Constant] = {}
    for probe in probes(base, [3], ["paced"]):
        if "beside" in probe.what:
            (scene,) = probe.scenarios(profile, 2.0)
            record = simulate(scene)
            found |= probe.learn(
                [replace(record, manifest={**record.manifest, "environment": {"cores": 4}})], profile
            ).constants
    assert found.keys() == {"host.paced.beside.1", "host.paced.beside.3"}
    host = replace(profile, constants={**known, **found}).apply(base).cluster.host
    assert (host.byte_cost, host.moving) == pytest.approx((0.5e-9, 0.02))
    assert host.beside == pytest.approx((0.0, 1.5, 3.0, 1.0), rel=0.01)


def test_where_no_core_is_idle_steps_lose_the_processor_time_of_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the clocks of the two processes that send them, not by how long steps took."""
    monkeypatch.setattr("aladdin.prices.hardware", lambda: {"cores": 2})
    base = MACHINE.override({"run.compute": "native", "run.links": "paced"})
    profile = Profile({"step_time.mean": Constant(0.02, "s", 0.02, 0.02)})
    (probe,) = (p for p in refreshing(base, "paced") if "steps of 2 beside" in p.what)
    (scene,) = probe.scenarios(profile, 2.0)
    record = simulate(scene)
    sent = float(record.nodes["bytes_out"][2:4].sum())
    spent = {"0": 7.0, "1": 7.0, "2": 0.75e-9 * sent, "3": 1.25e-9 * sent}
    clocked = replace(
        record, manifest={**record.manifest, "environment": {"cores": 2}, "transport_seconds": spent}
    )
    learned = probe.learn([clocked], profile).constants
    assert {name: one.value for name, one in learned.items()} == {"host.paced.beside.2": pytest.approx(2e-9)}
    unknown = replace(record, manifest={**record.manifest, "environment": {"cores": 2}})
    assert probe.learn([unknown], profile) == Learned()
    record.nodes["messages_out"][:] = 2
    assert "fewer than 5 messages" in probe.learn([clocked], profile).failed


def test_what_clocks_say_where_no_core_is_idle_drifts() -> None:
    """The last probes count, not all of them; with a core idle it is a small difference, and all do."""

    def one(value: float) -> Profile:
        constants = {f"host.paced.beside.{n}": Constant(value, "s", value, value) for n in (1, 2)}
        return Profile(constants, hardware={"cores": 2})

    found = pooled([one(1e-9)] + [one(1e-9) for _ in range(LATEST)] + [one(3e-9) for _ in range(LATEST)])
    assert found.value("host.paced.beside.2") == pytest.approx(3e-9)
    assert found.value("host.paced.beside.1") < 2.5e-9


@pytest.mark.parametrize(
    ("cores", "workers", "expected"),
    [(1, 4, [1]), (2, 4, [1, 2]), (4, 2, [1, 2]), (4, 8, [1, 4]), (64, 64, [1, 8])],
)
def test_steps_beside_messages_are_probed_with_idle_cores_and_with_none_up_to_a_number(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int, expected: list[int]
) -> None:
    monkeypatch.setattr("aladdin.prices.hardware", lambda: {"cores": cores})
    base = MACHINE.override({"run.compute": "native", "run.links": "paced", "cluster.workers": workers})
    words = [f"steps of {n} beside messages over paced links" for n in expected]
    assert [p.what for p in probes(base, [workers], ["paced"]) if "beside" in p.what] == words
    assert [p.what for p in refreshing(base, "paced") if "beside" in p.what] == words


LINKS = {"bandwidth": "1 Gbit/s", "latency": "100 us"}
SERVED = {"servers": {"count": 1, "placement": "beside"}}

OWN_MACHINES = {
    "listed": {"machines": [
        {"name": "a", "workers": 3, **LINKS}, {"name": "b", "workers": 1, "up": "2 Gbit/s"}, {"name": "s"},
    ], "servers": {"count": 1, "placement": ["s"]}},
    "counted": {"workers": 4, "machines": 2, "compute": {"scale": [1, 1, 2, 2]}, **LINKS, **SERVED},
    "joined": {"racks": 2, "machines_per_rack": 1, "workers_per_machine": 2, **LINKS, **SERVED},
    "various": {"heterogeneity": {"devices": {"up": ["1 Gbit/s", "2 Gbit/s"]}}, "workers": 4, **LINKS},
}  # fmt: skip


@pytest.mark.parametrize("cluster", OWN_MACHINES)
def test_probes_have_as_many_equal_machines_as_workers(cluster: str) -> None:
    base = scenarios.load("demo", {"cluster": OWN_MACHINES[cluster]})
    for probe in probes(base, [2, 4], ["native", "paced"]):
        for one in probe.scenarios(Profile({}), 2.5):
            used = [one.cluster.machines[place] for place in one.cluster.placement]
            assert len(set(one.cluster.placement)) == one.cluster.workers
            assert {(machine.up, machine.down, machine.latency) for machine in used} <= {
                (125e6, 125e6, used[0].latency), (25e6, 25e6, used[0].latency),
            }  # fmt: skip
    assert alike(base).cluster.workers == 4
    assert alike(MACHINE) == MACHINE, "nothing to change"


def test_a_scenario_with_machines_of_its_own_is_calibrated_and_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, said = scenarios.load("demo", {"cluster": OWN_MACHINES["listed"]}), []
    profile = calibrate(base, run=simulate, budget=1e-3, workers=(2,))
    assert profile.value("link.paced.efficiency") == pytest.approx(1.0)
    monkeypatch.setattr(validation, "run_for_real", lambda scene: simulate(profile.apply(scene)))
    for design in (SMALL, Fraction("paced", quick=True, length=3.0)):
        found = crosscheck(base, profile=profile, design=design, on_plan=said.append)
        assert len(found.cells) == len(design.cells())
        assert "on equal machines in place of the scenario's own" in said[-1]
    crosscheck(MACHINE, profile=profile, design=SMALL, on_plan=said.append)
    assert "equal machines" not in said[-1]


def test_pictures_of_a_calibration(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from analysis import probe_plots

    varied = MACHINE.override({"cluster.compute": {"model": "gamma", "mean": 0.02, "spread": 0.2}})
    profile = calibrate(varied, run=simulate, budget=1e-3)
    drawn = probe_plots.draw(profile, tmp_path)
    assert {file.name for file in drawn} == {
        "step_time.png", "tensor_rate.png", "link-native.png", "link-paced.png", "allreduce-2.png",
    }  # fmt: skip
    assert all(file.stat().st_size > 5000 for file in drawn)
    (line,) = [one["lines"]["stream"] for one in profile.notes["fits"]["link.paced"]]
    assert line["r2"] == pytest.approx(1.0)
    assert line["residual"] < 1e-6


SMALL = Basic(algorithms=("asp", "aladdin"), workers=(2,), settings=(("paced", "paced"),), length=3.0)


def test_a_stopped_check_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, ran = tmp_path / "check", []
    profile = calibrated()

    def run(scenario: Scenario) -> Record:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(scenario.algorithm.name)
        return simulate(profile.apply(scenario))

    monkeypatch.setattr(validation, "run_for_real", run)
    with pytest.raises(KeyboardInterrupt):
        crosscheck("demo", profile=profile, design=SMALL, out=folder)
    assert len(json.loads((folder / "cells.json").read_text())) == 2
    assert "ASP" in (folder / "results.md").read_text()
    ran.append("resumed")
    found = crosscheck("demo", profile=profile, design=SMALL, out=folder, resume=True)
    assert [name for name in ran if name != "resumed"] == ["asp", "aladdin", "asp", "aladdin"]
    assert len(found.cells) == 4
    assert all(cell.throughput_error == pytest.approx(0, abs=1e-9) for cell in found.cells)
    with pytest.raises(ScenarioError, match="a check of the same cells"):
        crosscheck("demo", profile=profile, design=replace(SMALL, workers=(4,)), out=folder, resume=True)
    with pytest.raises(ScenarioError, match=r"a cross-check was begun in \(it has no plan\.json\)$"):
        crosscheck("demo", profile=profile, design=SMALL, out=tmp_path / "nothing", resume=True)
    other = replace(profile, step_time_model="gamma")
    with pytest.raises(ScenarioError, match="a check with the same profile; this one was begun with prof"):
        crosscheck("demo", profile=other, design=SMALL, out=folder, resume=True)


def test_who_is_stopped_while_writing_leaves_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, put = tmp_path / "check", Path.replace
    profile = calibrated()

    def stopped(file: Path, target: Path) -> Path:
        if target.name == "rounds.json" and target.exists():
            raise KeyboardInterrupt
        return put(file, target)

    monkeypatch.setattr(validation, "run_for_real", lambda scenario: simulate(profile.apply(scenario)))
    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        crosscheck("demo", profile=profile, design=SMALL, out=folder)
    monkeypatch.setattr(Path, "replace", put)
    assert len(json.loads((folder / "rounds.json").read_text())) == 1
    figures = json.loads((folder / "figures.json").read_text())
    (folder / "figures.json").write_text(json.dumps({**figures, "minutes": 70.0}))
    found = crosscheck("demo", profile=profile, design=SMALL, out=folder, resume=True)
    assert len(found.cells) == 4
    assert 70 < found.figures["minutes"] < 75, "those of the first part count"


def test_a_run_without_a_step_is_a_word_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = calibrated()

    def short(scenario: Scenario) -> Record:
        record = simulate(profile.apply(scenario))
        steps = {name: column[:0] for name, column in record.steps.items()}
        return replace(record, steps=steps)

    monkeypatch.setattr(validation, "run_for_real", short)
    with pytest.raises(ScenarioError, match=r"run\.seconds: 3\.0 \(demo n=2 .*completed no step"):
        crosscheck("demo", profile=profile, design=SMALL)


def test_wide_intervals_ask_for_rounds_and_the_budget_ends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = calibrated()
    noise = iter([0.04, 0.06] * 50)

    class Repeated(Basic):
        def rounds(self, cell: object) -> tuple[int, int]:
            return 1, 3

    def run(scenario: Scenario) -> Record:
        one = profile.apply(scenario)
        return simulate(one.override({"cluster.compute.mean": next(noise)}))

    monkeypatch.setattr(validation, "run_for_real", run)
    steady = crosscheck("demo", profile=profile, design=Repeated(**vars(SMALL)))
    assert {cell.rounds for cell in steady.cells} == {1}
    noisy = {"cluster.compute": {"model": "gamma", "mean": 0.05, "spread": 1.5}}
    wide = crosscheck("demo", profile=profile, design=Repeated(**vars(SMALL)), overrides=noisy)
    assert max(cell.rounds for cell in wide.cells) == 3
    stopped = crosscheck(
        "demo", profile=profile, design=Repeated(**vars(SMALL)), overrides=noisy, budget=1e-3
    )
    assert {cell.rounds for cell in stopped.cells} == {1}


def test_cells_under_faults_that_cannot_be_run_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = calibrated()

    class Faulty(Basic):
        def cells(self) -> list[dict[str, object]]:
            return [{**cell, "faults": "none"} for cell in super().cells()[:2]] + [
                {**super().cells()[0], "faults": "crash"}
            ]

    def run(scenario: Scenario) -> Record:
        if len(ran) == 2:
            raise ScenarioError("faults", ["crash"], "none")
        ran.append(scenario.name)
        return simulate(profile.apply(scenario))

    ran: list[str] = []
    monkeypatch.setattr(validation, "run_for_real", run)
    found = crosscheck("demo", profile=profile, design=Faulty(**vars(SMALL)))
    assert len(found.cells) == len(found.measured) == 2
    assert found.left_out == ["ASP under crash left out: faults: ['crash'] is not valid; expected none"]
    assert found.figures["left_out"] == found.left_out


@pytest.mark.parametrize("burst", [0.0, 131072.0])
def test_a_rings_lag_and_the_latency_of_links_that_save_are_found_again(burst: float) -> None:
    """On a simulated machine whose shaped links save a burst: it hides neither what a message is late by nor
    how long a path is, and both are found at both rates."""
    truth = {"cluster.network.burst": burst, "cluster.latency": 1.5e-3, "cluster.host.ring_lag": 4e-3}
    base = MACHINE.override({**truth, "run.links": "shaped", "cluster.workers": 4})
    known = Profile({}, ranges={"link_rate": (nominal(base) / 5, nominal(base))})
    (links,) = [one for one in probes(base, [4], ["shaped"]) if one.what == "shaped links"]
    records = [simulate(scene) for scene in links.scenarios(known, 2.0)]
    found = fit_links(records[0], "link.shaped", nominal(base), burst)
    alone = found["link.shaped.latency"].value + found["link.shaped.overhead"].value
    assert alone == pytest.approx(1.5e-3 + 1e-4, rel=1e-6)  # behind others a saving link hides the overhead
    assert found["link.shaped.efficiency"].value == pytest.approx(1.0, rel=1e-6)
    assert fit_carried(records[1], nominal(base) / 5).value == pytest.approx(1.0, rel=2e-3)  # overhead

    set_to = {"link.shaped.burst": Constant(burst, "bytes", burst, burst)}
    profile = replace(known, constants={**found, **set_to})
    rings = [one for one in probes(base, [4], ["shaped"]) if "all-reduce" in one.what]
    for ring, name in zip(rings, ("ring.shaped.lag.4", "ring.shaped.lag.4.slow"), strict=True):
        (scene,) = ring.scenarios(profile, 2.0)
        said = ring.learn([simulate(scene.override({"algorithm.options.repeats": 40}))], profile)
        assert said.constants[name].value == pytest.approx(4e-3, rel=0.25), name
    without = ring.learn([simulate(scene.override({"cluster.host.ring_lag": 0.0}))], profile)
    assert without.constants[name].value == pytest.approx(0.0, abs=2e-3)


@pytest.mark.parametrize("burst", [0.0, 131072.0])
@pytest.mark.parametrize("handover", [0.0, 3e-3])
def test_how_long_links_rest_between_senders_is_found_again(burst: float, handover: float) -> None:
    """After a rest a link that saves passes a burst at once, so rests cost less; they are found though."""
    host = {"cores": 2, "byte_cost": 1e-9, "handover": handover}
    truth = {"cluster.network.burst": burst, "cluster.host": host, "cluster.compute.mean": 0.02}
    base = MACHINE.override({**truth, "run.links": "shaped"})
    hub = next(one for one in probes(base, [2, 5], ["shaped"]) if "among 5" in one.what)
    known = {"device.slots": 2.0, "host.shaped.byte_cost": 1e-9, "link.shaped.burst": burst}
    profile = Profile({key: Constant(value, "1", value, value) for key, value in known.items()})
    (scene,) = hub.scenarios(profile, 1.0)
    assert scene.cluster.workers == 5
    shares = (1e-3, 1.0, 100.0)
    rounds = [hub.scenarios(profile, share)[0].algorithm.options["rounds"] for share in shares]
    assert rounds[0] == 3
    assert rounds[0] < rounds[1] <= rounds[2] == 9
    assert hub.seconds(profile, 100.0) > hub.seconds(profile, 1e-3)
    found = hub.learn([simulate(scene)], profile).constants
    assert found.keys() == {"ring.shaped.lag.5", "hub.shaped.handover.4"}
    assert found["hub.shaped.handover.4"].value == pytest.approx(handover, rel=0.02, abs=2e-4)
    elsewhere = base.override({"cluster.host": {"cores": 0}})
    unknown = next(one for one in probes(elsewhere, [5], ["shaped"]) if "among 5" in one.what)
    said = unknown.learn([simulate(scene) for scene in unknown.scenarios(Profile({}), 1.0)], Profile({}))
    assert said.constants.keys() == {"ring.shaped.lag.5"}
