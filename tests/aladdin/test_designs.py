"""The committed design holds what it promises; its cells are scenarios that both drivers take."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from dataclasses import replace
from importlib import resources
from typing import Any

import pytest

import scenarios
from aladdin.designs.basic import Basic
from aladdin.designs.fraction import LONGEST, SHORTEST, SHORTEST_NATIVE, Fraction
from analysis.balance import meetings, spread
from analysis.crosscheck import Prediction
from benchmarks import design
from core.algorithms import ALGORITHMS
from scenarios import ScenarioError
from scenarios.workloads.layers import layer_sizes

FACTORS = ("n", "bandwidth", "slow", "message", "compute")
CELLS = Fraction().cells()
CALM = [cell for cell in CELLS if cell["faults"] == "none"]


def groups(cells: list[dict[str, Any]]) -> dict[tuple[Any, ...], list[str]]:
    found: dict[tuple[Any, ...], list[str]] = {}
    for cell in cells:
        found.setdefault(tuple(cell[name] for name in (*FACTORS, "faults")), []).append(cell["algorithm"])
    return found


def test_every_algorithm_and_every_level_is_there_three_times() -> None:
    assert len(CELLS) <= 60
    assert set(Counter(cell["algorithm"] for cell in CALM)) == set(ALGORITHMS)
    for name in ("algorithm", *FACTORS, "faults"):
        assert min(Counter(cell[name] for cell in CELLS).values()) >= 3, name
    levels = [len({cell[name] for cell in CALM}) for name in FACTORS]
    assert levels == [3, 3, 3, 2, 2]


@pytest.mark.parametrize("pair", list(itertools.combinations(FACTORS, 2)), ids="-".join)
def test_levels_meet_as_evenly_as_can_be(pair: tuple[str, str]) -> None:
    circumstances = [dict(zip(FACTORS, key, strict=False)) for key in groups(CALM)]
    assert len(circumstances) == 18
    assert spread(circumstances, *pair) <= (1 if pair == ("message", "compute") else 0)


def test_algorithms_are_spread_over_the_levels() -> None:
    """With three cells an algorithm cannot meet all levels of all factors; few meetings are missing."""
    counts = [count for name in FACTORS for count in meetings(CALM, "algorithm", name).values()]
    assert len(counts) == 16 * 13
    assert sum(count == 0 for count in counts) <= 8
    assert max(counts) <= 3


def test_every_group_can_be_ranked() -> None:
    for algorithms in groups(CELLS).values():
        assert len(set(algorithms)) == len(algorithms) >= 3


def test_quick_is_a_part_of_it() -> None:
    quick = Fraction(quick=True).cells()
    assert 6 <= len(quick) <= 12
    assert all(cell in CELLS for cell in quick)
    assert {cell["compute"] for cell in quick} == {"paced", "native"}


def test_cells_are_scenarios_of_what_their_levels_say() -> None:
    design, base = Fraction(), scenarios.load("demo")
    for cell in CALM:
        made = design.scenario(base, cell)
        rates = [machine.up for machine in made.cluster.machines]
        expected = {"200 Mbit/s": {25e6}, "1 Gbit/s": {125e6}, "mixed": {25e6, 125e6}}[cell["bandwidth"]]
        assert set(rates) == expected
        assert made.cluster.workers == cell["n"]
        assert (made.run.links, made.run.compute) == ("paced", cell["compute"])
        message = 4e-6 * sum(layer_sizes(made.workload))
        assert message == pytest.approx(float(cell["message"].split()[0]), rel=0.01)


def test_a_fault_is_part_of_the_scenario() -> None:
    (cell, *_) = [cell for cell in CELLS if cell["faults"] == "crash"]
    made = Fraction().scenario(scenarios.load("demo"), cell)
    assert [(fault.kind, fault.back) for fault in made.faults] == [("crash", 4.0)]


@pytest.mark.parametrize(
    ("step", "slowest", "seconds"),
    [(0.05, 0.05, SHORTEST), (1.0, 1.0, 18.0), (0.5, 4.0, 32.0), (9, 9, LONGEST)],
)
def test_runs_are_as_long_as_a_steady_rate_needs(step: float, slowest: float, seconds: float) -> None:
    prediction = Prediction(1.0, step, {}, 0.0, slowest=slowest)
    paced, native = (next(c for c in CALM if c["compute"] == kind) for kind in ("paced", "native"))
    assert Fraction().seconds(paced, prediction) == seconds
    assert Fraction().seconds(native, prediction) == max(seconds, SHORTEST_NATIVE)
    assert Fraction(quick=True).seconds(native, prediction) == seconds
    assert Fraction(length=3.0).seconds(native, prediction) == 3.0


def test_links_of_the_machine_have_no_rates() -> None:
    with pytest.raises(ScenarioError, match=r"run\.links"):
        Fraction("native").scenario(scenarios.load("demo"), CALM[0])


def test_the_basic_design() -> None:
    assert len(Basic().cells()) == 48
    one = replace(Basic(), length=3.0)
    assert one.scenario(scenarios.load("demo"), one.cells()[0]).run.seconds == 3.0
    assert one.rounds({"links": "paced", "compute": "native"}) == (5, 12)
    assert one.rounds({"links": "paced", "compute": "paced"}) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("table", "make"), [("full.csv", design.design), ("gpu.csv", design.gpu)])
def test_the_tables_are_what_their_program_makes(table: str, make: Any) -> None:
    """Nobody has put in a cell by hand, or taken one out."""
    text = (resources.files("aladdin") / "designs" / table).read_text(encoding="utf-8")
    made = [{name: str(level) for name, level in row.items()} for row in make()]
    assert list(csv.DictReader(text.splitlines())) == made
