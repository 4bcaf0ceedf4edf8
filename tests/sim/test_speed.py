"""What a step costs, counted in events: no clock of the wall is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.sim_speed import scenario
from scenarios.plan import plan
from sim.driver import Driver

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
    """Fair sharing behind one server: flows stay in hubs, the general solver has next to nothing to do."""
    made = Driver(plan(scenario("asp", 256, "fair", 10)))
    solved: list[int] = []
    solve = made.network.fluid._solve

    def count(flows: list[object]) -> None:
        solved.append(len(flows))
        solve(flows)  # type: ignore[arg-type]

    made.network.fluid._solve = count  # type: ignore[method-assign, assignment]
    made.run()
    assert sum(solved) <= 20


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
            "seconds", "steps_per_s", "timeouts_per_step", "rss_mb",
        }  # fmt: skip
        assert row["steps_per_s"] > 0
        assert row["timeouts_per_step"] > 0
        assert row["rss_mb"] > 1
