"""A run that is stopped at a known simulated moment: what it recorded is the beginning of the full run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from analysis import metrics
from core.record import KINDS, PARTS, Record
from scenarios import Scenario
from sim import clock
from sim.driver import Driver

TREE = {
    "cluster": {"workers": 6, "bandwidth": "1 Gbit/s", "latency": "50 us", "servers": {"count": 2},
                "compute": {"model": "gamma", "mean": 0.1, "spread": 0.3}, "tensor_rates": {"apply": 1e9}},
    "workload": {"parameters": 1_000_000, "batch": 8},
    "run": {"steps": 40, "warmup_steps": 2},
}  # fmt: skip


OVERLAPPED = {"name": "arsgd", "options": {"overlap": "backward", "buckets": 4}}


def scenario(algorithm: Any, **run: Any) -> Scenario:
    return Scenario.from_dict({**TREE, "algorithm": algorithm, "run": {**TREE["run"], **run}})  # type: ignore[dict-item]


def stopped(one: Scenario, after: int) -> tuple[Record, float]:
    """The record of a run that is asked to stop once ``after`` steps have begun, and the moment."""
    stop, moments = sim.Stop(), []

    def on_clock(now: float, steps: int) -> None:
        if steps >= after and not stop.asked:
            stop.asked = True
            moments.append(now)

    with pytest.raises(sim.Interrupted) as caught:
        sim.simulate(one, on_clock=on_clock, stop=stop)
    assert caught.value.record is not None
    return caught.value.record, moments[0]


@pytest.mark.parametrize(
    "algorithm", ["asp", "bsp", "ssp", "aladdin", "easgd", "arsgd", "dpsgd", "adpsgd", OVERLAPPED]
)
def test_what_is_kept_is_the_beginning_of_the_full_run(algorithm: Any) -> None:
    part, moment = stopped(scenario(algorithm), 90)
    whole = sim.simulate(scenario(algorithm))
    assert moment <= part.duration < whole.duration
    assert 90 <= part.nodes["steps"].sum() + 6 <= 110
    final = {int(node): step for node, step in zip(part.steps["node"], part.steps["step"], strict=True)}
    closed = part.steps["step"] < np.array([final[int(node)] for node in part.steps["node"]])
    names = zip(whole.steps["node"].tolist(), whole.steps["step"].tolist(), strict=True)
    keys = {name: i for i, name in enumerate(names)}
    for i in np.flatnonzero(closed):
        at = keys[int(part.steps["node"][i]), int(part.steps["step"][i])]
        for column in part.steps:
            assert part.steps[column][i] == whole.steps[column][at], column
    assert (part.steps["end"] <= part.duration).all()


@pytest.mark.parametrize("after", [46, 47, 48, 51])
@pytest.mark.parametrize(
    "algorithm", ["asp", "bsp", "aladdin", "easgd", "arsgd", OVERLAPPED, "local_sgd", "dpsgd", "adpsgd"]
)
def test_every_second_until_then_is_booked(algorithm: Any, after: int) -> None:
    part, _ = stopped(scenario(algorithm, spans=True), after)
    workers = part.nodes["role"] == "worker"
    booked = sum(part.nodes[name][workers] for name in PARTS if name != "idle")
    assert booked == pytest.approx(np.full(6, part.duration))
    row = sum(part.steps[name] for name in PARTS if name != "idle")
    assert row == pytest.approx(part.steps["end"] - part.steps["start"])
    assert (part.nodes["compute"][workers] > 0).all()
    spans = part.spans
    lasted = spans["end"] - spans["start"]
    for rank in range(6):
        own = lasted[(spans["node"] == rank) & (spans["kind"] != KINDS.index("transfer"))].sum()
        assert own == pytest.approx(part.duration)


RING = {"cluster.network.collective": "messages"}


@pytest.mark.parametrize("after", [150, 151, 153, 156, 160, 400])
@pytest.mark.parametrize("algorithm", ["asp", "bsp", "aladdin", "arsgd", OVERLAPPED, "dpsgd", "adpsgd"])
def test_between_any_two_events_every_second_is_booked(
    algorithm: Any, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step may last long: a run that is asked to end does so in its midst."""
    beat = Driver._beat

    def asked(driver: Driver) -> None:
        driver._stop.asked = True
        beat(driver)

    monkeypatch.setattr(clock, "BEAT", after)
    monkeypatch.setattr(Driver, "_beat", asked)
    with pytest.raises(sim.Interrupted) as caught:
        sim.simulate(scenario(algorithm, spans=True).override(RING))
    part = caught.value.record
    assert part is not None
    workers = part.nodes["role"] == "worker"
    booked = sum(part.nodes[name][workers] for name in PARTS if name != "idle")
    assert booked == pytest.approx(np.full(6, part.duration))
    row = sum(part.steps[name] for name in PARTS if name != "idle")
    assert row == pytest.approx(part.steps["end"] - part.steps["start"])
    monkeypatch.undo()
    assert part.duration < sim.simulate(scenario(algorithm).override(RING)).duration


def test_the_record_says_that_it_is_not_complete() -> None:
    part, moment = stopped(scenario("asp"), 60)
    (flag,) = part.manifest["flags"]
    assert flag.startswith("incomplete: stopped ")
    assert f"{part.duration:.6g} simulated seconds" in flag
    assert part.duration == pytest.approx(moment, abs=0.2)
    assert metrics.summary(part)["flags"] == [flag]
    assert metrics.summary(part)["throughput"] > 0


@pytest.mark.parametrize("budget", [{"seconds": 4.0, "steps": 0}, {"samples": 1600, "steps": 0}])
def test_any_budget_can_be_stopped(budget: dict[str, Any]) -> None:
    part, moment = stopped(scenario("asp", **budget), 40)
    assert moment <= part.duration < 4.0
    assert 30 <= part.nodes["steps"].sum() <= 60


def test_stopped_before_the_first_step_there_is_a_record_all_the_same() -> None:
    stop = sim.Stop()
    stop.asked = True
    with pytest.raises(sim.Interrupted) as caught:
        sim.simulate(scenario("bsp"), stop=stop)
    record = caught.value.record
    assert record is not None
    assert record.nodes["steps"].sum() == 0
    assert "0 steps begun" in record.manifest["flags"][0]
    assert metrics.summary(record)["throughput"] == 0


def test_progress_tells_simulated_seconds_and_steps() -> None:
    told: list[tuple[float, int]] = []
    record = sim.simulate(scenario("asp"), on_clock=lambda now, steps: told.append((now, steps)))
    assert [steps for _, steps in told] == list(range(1, 241))
    assert told == sorted(told)
    assert told[-1][0] <= record.duration


def test_progress_is_told_within_long_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps of six workers lie 60 messages: time goes on, steps do not. The record is as ever."""
    one = scenario("arsgd", steps=5).override(RING)
    monkeypatch.setattr(clock, "BEAT", 40)
    told: list[tuple[float, int]] = []
    record = sim.simulate(one, on_clock=lambda now, steps: told.append((now, steps)))
    assert told == sorted(told)
    within = [now for now, steps in told if steps == 12]
    assert len(set(within)) >= 3
    monkeypatch.undo()
    plain = sim.simulate(one)
    for name, values in plain.steps.items():
        assert record.steps[name].tobytes() == values.tobytes(), name


def test_progress_in_a_run_of_many_steps_is_told_often() -> None:
    told: list[int] = []
    one = scenario("asp", seconds=1000.0, steps=0).override(
        {"cluster.workers": 1, "cluster.servers.count": 1}
    )
    stop = sim.Stop()

    def on_clock(now: float, steps: int) -> None:
        told.append(steps)
        stop.asked = len(told) == 3

    with pytest.raises(sim.Interrupted):
        sim.simulate(one.override({"run.seconds": 1e6}), on_clock=on_clock, stop=stop)
    assert told == [2048, 4096, 6144]
