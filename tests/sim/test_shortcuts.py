"""The short way through the simulator leaves the record that the long way leaves, to the last byte."""

from __future__ import annotations

import pytest

from core.record import Record
from scenarios.plan import Plan
from sim.driver import Driver
from sim.fast import FastPump
from sim.network import Pair
from sim.programs import Pump
from tests.sim.samples import ALGORITHMS, digest, sample


def run(plan: Plan, shortcuts: bool, crash: float | None = None) -> tuple[Driver, Record]:
    driver = Driver(plan, shortcuts=shortcuts)
    if crash is not None:
        driver.crash(1, crash)
    return driver, driver.run()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_record_is_the_same(algorithm: str) -> None:
    for seed in range(5):
        plan = sample(seed, algorithm)
        assert digest(run(plan, True)[1]) == digest(run(plan, False)[1]), plan.scenario.to_dict()


@pytest.mark.parametrize("algorithm", ["asp", "aladdin", "bsp", "adpsgd"])
def test_the_record_is_the_same_when_a_worker_dies(algorithm: str) -> None:
    for seed in range(4):
        plan = sample(100 + seed, algorithm)
        assert digest(run(plan, True, 0.35)[1]) == digest(run(plan, False, 0.35)[1])


def test_each_run_goes_the_way_that_was_asked_for() -> None:
    """Else the tests above would compare a way with itself."""
    for seed in range(6):
        plan = sample(seed, "asp")
        for shortcuts in (True, False):
            driver, _ = run(plan, shortcuts)
            pumps = {type(pump) for host in driver.hosts for pump in host.programs}
            pairs = {type(pair) for host in driver.hosts for pair in host.pairs.values()}
            assert pumps == {FastPump if shortcuts else Pump}
            assert shortcuts or pairs == {Pair}
            admission = plan.scenario.cluster.network.admission
            if shortcuts and admission == "fair":
                assert {kind.__name__ for kind in pairs} == {"_SharedPair"}
            plain = not plan.scenario.cluster.network.backplane and plan.scenario.cluster.paths is None
            if shortcuts and admission == "fifo" and plain:
                assert {kind.__name__ for kind in pairs} <= {"_GrantedPair", "_SharedPair"}


def test_other_seeds_leave_other_records() -> None:
    assert len({digest(run(sample(seed, "asp"), True)[1]) for seed in range(8)}) == 8


def test_racks_and_sites_are_among_the_samples() -> None:
    """Else the tests above would say nothing of shared up-links."""
    drivers = [run(sample(seed, name), True)[0] for name in ("asp", "aladdin", "bsp") for seed in range(8)]
    further = [len(driver.network.further) for driver in drivers]
    assert sum(count > 2 for count in further) >= 8
    assert sum(count == 0 for count in further) >= 4
