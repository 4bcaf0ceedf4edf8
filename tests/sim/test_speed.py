"""What a step costs, counted in events: no clock of the wall is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.sim_speed import arguments, scenario
from scenarios.plan import plan
from sim.driver import Driver
from sim.fluid import Link
from sim.maxmin import Solver

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sim_speed.py"


def events_per_step(algorithm: str, workers: int, admission: str, steps: int) -> float:
    """Alarms that the clock has queued, by worker step."""
    made = Driver(plan(scenario(algorithm, workers, admission, steps)))
    record = made.run()
    return next(made.clock._eid) / int(record.nodes["steps"].sum())


@pytest.mark.parametrize("algorithm", ["asp", "aladdin"])
@pytest.mark.parametrize("admission", ["fifo", "fair"])
def test_events_per_step_do_not_grow_with_the_number_of_workers(algorithm: str, admission: str) -> None:
    few = events_per_step(algorithm, 8, admission, 40)
    many = events_per_step(algorithm, 256, admission, 10)
    assert few <= 11
    assert many <= 11


def test_a_busy_star_needs_no_solver() -> None:
    """Fair sharing behind one server: what happens at its link stays there."""
    made = Driver(plan(scenario("asp", 256, "fair", 10)))
    fluid = made.network.fluid
    looked_at: list[int] = []
    solve = fluid.solve

    def count() -> None:
        looked_at.append(len(fluid._dirty))
        solve()

    fluid.solve = count  # type: ignore[method-assign]
    made.run()
    assert sum(looked_at) <= 20


@pytest.mark.parametrize(("servers", "racks", "most"), [(16, 0, 1), (16, 8, 15), (1, 8, 1)])
def test_a_change_reaches_few_links(
    monkeypatch: pytest.MonkeyPatch, servers: int, racks: int, most: float
) -> None:
    """Looks at links by message, however many flows (here hundreds) are connected with one another."""
    looks = 0
    water = Solver._water

    def count(solver: Solver, link: Link) -> float:
        nonlocal looks
        looks += 1
        return water(solver, link)

    monkeypatch.setattr(Solver, "_water", count)
    record = Driver(plan(scenario("asp", 64, "fair", 3, servers, racks))).run()
    assert looks <= most * 2 * servers * int(record.nodes["steps"].sum())


def test_the_benchmark_prints_what_it_promises() -> None:
    command = [sys.executable, str(BENCHMARK), "--workers", "3", "--steps", "5", "--repeats", "1", "--json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert [(row["algorithm"], row["n"], row["admission"]) for row in rows] == [
        ("asp", 3, "fifo"),
        ("asp", 3, "fair"),
        ("aladdin", 3, "fifo"),
        ("aladdin", 3, "fair"),
    ]
    for row in rows:
        assert set(row) == {
            "algorithm", "n", "admission", "servers", "racks",
            "seconds", "steps_per_s", "timeouts_per_step", "timeouts_per_message", "compiled", "rss_mb",
        }  # fmt: skip
        assert row["steps_per_s"] > 0
        assert row["timeouts_per_step"] > 0
        assert row["rss_mb"] > 1


@pytest.mark.parametrize(
    "wrong", [["--steps", "-1"], ["--racks", "-2"], ["--workers", "0"], ["--workers", "5", "--racks", "2"]]
)
def test_the_benchmark_refuses_numbers_that_make_no_sense(
    wrong: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sim_speed.py", *wrong])
    with pytest.raises(SystemExit) as stop:
        arguments()
    assert stop.value.code == 2
    assert wrong[0] in capsys.readouterr().err
