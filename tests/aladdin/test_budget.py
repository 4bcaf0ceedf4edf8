"""What a calibration costs: its first round is planned into the budget, and keeps to the plan."""

from __future__ import annotations

from itertools import pairwise

import pytest

import scenarios
from aladdin.calibration import BUDGET, PATIENCE, calibrate, planned
from aladdin.designs.fraction import MESSAGES, Fraction
from aladdin.reprobing import refresh, refreshed_in
from core.record import Record
from scenarios import Scenario
from scenarios.profile import Profile
from sim import simulate

COUNTS = (2, 4, 8)
WORKLOADS = [key for key in MESSAGES if key[0].endswith("MB")]
STEPS = {("4 MB", "native"): 0.045, ("20 MB", "native"): 0.23}
"""Seconds of native steps; all others take 15 ms."""


def base(message: str, compute: str, kind: str) -> Scenario:
    cell = {"message": message, "compute": compute}
    return scenarios.load("demo").override(Fraction(kind=kind).workload(cell)[1])


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is planned is planned for them, whatever machine the tests run on."""
    monkeypatch.setattr("aladdin.prices.hardware", lambda: {"cores": 2})


class Machine:
    """Two processors in virtual time: runs probes on the simulator, and takes for each what it would last.

    slower  how many times as long as on a quiet machine steps, starts and native links take
    """

    def __init__(self, step: float, slower: float = 1.0) -> None:
        self.now, self.step, self.slower, self.runs = 0.0, step, slower, 0
        self.beside: list[str] = []

    def run(self, scenario: Scenario) -> Record:
        n, batch = scenario.cluster.workers, scenario.workload.batch
        truth = {
            "cluster.workers_per_device": n,
            "cluster.device_slots": min(2.0, n) / self.slower,
            "cluster.network.allreduce_bandwidth": 6e8 / self.slower,
            "cluster.tensor_rates": {"apply": 5e9},
        }
        if scenario.run.links == "native":
            truth["cluster.bandwidth"] = 1.4e9 / self.slower
        if scenario.run.compute == "native":
            truth["cluster.compute.mean"] = self.step * (0.1 if batch <= 2 else 1.0)
        record = simulate(scenario.override(truth))
        first = 0.0 if batch <= 2 else self.step * max(1.0, n / 2)
        self.now += self.slower * (1.0 + 0.2 * n + first) + record.duration + (0.0 if self.runs else 3.0)
        self.runs += 1
        return record

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize("kind", ["paced", "shaped", "native"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_first_round_is_planned_into_a_minute(workload: tuple[str, str], kind: str) -> None:
    seconds = planned(base(*workload, kind), COUNTS, (kind,))
    assert 0.2 * BUDGET < seconds <= BUDGET


def test_plans_grow_with_the_model_and_with_the_workers() -> None:
    """Where nothing but the least is affordable: plans that fill a budget are all as long as that."""

    def least(hidden: int, counts: tuple[int, ...]) -> float:
        one = base("20 MB", "paced", "paced").override({"workload.hidden": [hidden, hidden]})
        return planned(one, counts, ("paced", "native"), 1e-3)

    by_size = [least(hidden, COUNTS) for hidden in (300, 960, 2200, 4400)]
    by_workers = [least(2200, counts) for counts in ((2,), (2, 4), (2, 4, 8), (2, 4, 8, 16))]
    for seconds in (by_size, by_workers):
        assert all(one < other for one, other in pairwise(seconds))


def few(workload: tuple[str, str], kind: str) -> bool:
    """Every workload over paced links, and one over the other kinds: what else there is, is slow."""
    return kind == "paced" or workload == ("20 MB", "native")


CASES = [
    pytest.param(workload, kind, marks=() if few(workload, kind) else pytest.mark.slow)
    for workload in WORKLOADS
    for kind in ("paced", "shaped", "native")
]


@pytest.mark.parametrize(("workload", "kind"), CASES)
def test_a_first_round_takes_no_longer_than_a_minute(workload: tuple[str, str], kind: str) -> None:
    """And every constant is there that predictions need."""
    machine = Machine(STEPS.get(workload, 0.015))
    profile = calibrate(
        base(*workload, kind), workers=COUNTS, links=(kind,), run=machine.run, clock=machine.clock
    )
    assert profile.notes["seconds"] == pytest.approx(machine.now, abs=0.1)
    assert profile.notes["first_round"] <= profile.notes["seconds"] <= BUDGET
    assert profile.value("step_time.mean") == pytest.approx(machine.step)
    wanted = {*(f"device.slots.{n}" for n in COUNTS), "tensor_rate.apply"}
    wanted |= {f"link.{kind}.{name}" for name in ("latency", "overhead", "bandwidth", "shared")}
    own = "allreduce.bandwidth" if kind == "native" else f"ring.{kind}.lag"
    assert wanted | {f"{own}.{n}" for n in COUNTS} <= profile.constants.keys()


def test_a_slow_machine_gets_the_fewest_repetitions_and_says_what_it_took() -> None:
    """All that is not a link with a rate takes twice as long. What another probe says, too, is left out."""
    fast, slow = Machine(0.23), Machine(0.23, slower=2.0)
    seconds = {}
    for machine in (fast, slow):
        one = base("20 MB", "native", "paced")
        profile = calibrate(one, workers=COUNTS, links=("paced",), run=machine.run, clock=machine.clock)
        seconds[machine.slower] = profile.notes["first_round"]
        repetitions = profile.notes["repetitions"]
        assert repetitions["steps of 2 beside messages over paced links"] >= 1
        if machine is slow:
            assert set(repetitions.values()) <= {0, 1}
    assert seconds[1.0] < BUDGET
    assert seconds[2.0] < 1.6 * BUDGET


def test_probes_that_never_had_the_cores_for_themselves_have_more_time() -> None:
    """From the twentieth second on the host keeps a third of them, in which all takes longer."""

    class Robbed(Machine):
        def run(self, scenario: Scenario) -> Record:
            robbed = 20.0 < self.now < 55.0
            self.slower = 1.5 if robbed else 1.0
            record = super().run(scenario)
            record.manifest["environment"] = {"stolen": 0.3 if robbed else 0.01}
            return record

    machine = Robbed(0.045)
    one = base("4 MB", "native", "paced")
    profile = calibrate(one, workers=(2, 4), links=("paced",), run=machine.run, clock=machine.clock)
    assert BUDGET < profile.notes["seconds"] <= PATIENCE * BUDGET
    assert profile.value("step_time.mean") == pytest.approx(0.045)
    assert "host" not in profile.notes["doubts"].get("the whole profile", "")
    shares = profile.notes["stolen"].values()
    assert any(0.3 in some for some in shares)
    assert all(0.01 in some for some in shares if some != [None] * len(some))
    quiet = Machine(0.045)
    profile = calibrate(one, workers=(2, 4), links=("paced",), run=quiet.run, clock=quiet.clock)
    assert profile.notes["seconds"] <= BUDGET


def test_with_time_to_spare_every_probe_runs_again() -> None:
    machine = Machine(0.015)
    one = base("4 MB", "paced", "paced")
    profile = calibrate(one, workers=(2,), links=("paced",), run=machine.run, clock=machine.clock)
    assert min(profile.notes["repetitions"].values()) >= 2
    assert profile.notes["seconds"] <= BUDGET


def test_what_a_refresh_takes_is_known_before() -> None:
    machine = Machine(0.23)
    one = base("20 MB", "native", "paced").override({"cluster.workers": 8})
    profile = calibrate(one, workers=COUNTS, links=("paced",), run=machine.run, clock=machine.clock)
    begun, alone = machine.now, 2.5 + 11 * 0.23
    refresh(profile, one, machine.run)
    assert refreshed_in(profile, one) == pytest.approx(machine.now - begun + alone, rel=0.25)
    assert refreshed_in(Profile({}), one.override({"run.compute": "paced"})) == 0.0
