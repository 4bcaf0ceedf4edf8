"""Probes before rounds: what each has said is kept, and pooled anew by a check that goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aladdin import rounds, validation
from aladdin.designs.basic import Basic
from aladdin.probed import ENOUGH, FIRST, SELDOM, Probed
from aladdin.probing import refreshing
from aladdin.reprobing import SHARE
from aladdin.validation import crosscheck
from analysis import report
from core.record import Record
from scenarios import Scenario
from scenarios.profile import Constant, Profile
from sim import simulate
from tests.aladdin.machines import MACHINE, calibrated

BESIDE = "host.paced.beside.4"

DESIGN = Basic(
    algorithms=("asp", "aladdin"), workers=(2,), slow=(1.0,), settings=(("paced", "native"),), batches={},
    length=3.0, repeats={("paced", "native"): 3},
)  # fmt: skip
"""Two cells, three rounds each."""

SAID = (3, 40, 7, 1, 25, 11)
"""What probes of steps beside messages say before each round, ns a byte."""


def constant(value: float) -> Constant:
    return Constant(value, "s", value, value)


def test_a_pool_that_is_restored_says_what_it_would_have_said() -> None:
    first = Profile({"step_time.mean": constant(0.03), BESIDE: constant(1e-9)})
    fresh = [
        replace(first, constants={**first.constants, BESIDE: constant(k * 1e-9)}) for k in (4, 9, 2, 3.5)
    ]
    whole = Probed({"w": first, "other": first})
    said = [whole.add(0, turn, "w", one).value(BESIDE) for turn, one in enumerate(fresh)]
    assert said == pytest.approx([2.5e-9, 14e-9 / 3, 3e-9, 9.5e-9 / 3])
    assert whole.add(1, 0, "other", fresh[0]).value(BESIDE) == pytest.approx(2.5e-9), (
        "a pool for each workload"
    )
    kept = json.loads(json.dumps(whole.rows))
    again = Probed({"w": first, "other": first})
    again.restore(kept, lambda cell, turn: cell == 0 and turn < 2)
    assert [again.add(0, turn, "w", fresh[turn]).value(BESIDE) for turn in (2, 3)] == said[2:]


def test_what_was_not_measured_anew_is_not_kept() -> None:
    first = Profile({"step_time.mean": constant(0.03), BESIDE: constant(1e-9)})
    pool = Probed({"w": first})
    pool.add(0, 0, "w", first)
    assert [row["constants"] for row in pool.rows] == [{}]
    moved = replace(first, constants={**first.constants, BESIDE: constant(3e-9)})
    assert pool.add(0, 1, "w", moved).value(BESIDE) == pytest.approx(2e-9)


def test_a_check_that_went_on_predicts_as_one_that_was_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes say other things before every round; one check is stopped amid its fourth run, and once more."""
    cost = {"host.paced.byte_cost": constant(1e-10), BESIDE: constant(1e-9)}
    found = calibrated()
    profile = replace(found, constants={**found.constants, **cost})
    finished: list[str] = []
    stops: set[int] = set()

    def refreshed(known: Profile, *_: Any) -> tuple[Profile, tuple[str, ...]]:
        beside = constant(1e-9 * SAID[len(finished)])
        return replace(known, constants={**known.constants, BESIDE: beside}), ()

    def run(scenario: Scenario) -> Record:
        record = simulate(profile.apply(scenario))
        if scenario.algorithm.name.startswith("core.probes:"):
            return record
        if len(finished) in stops:
            stops.remove(len(finished))
            raise KeyboardInterrupt
        finished.append(scenario.algorithm.name)
        return record

    monkeypatch.setattr(rounds, "refreshed", refreshed)
    monkeypatch.setattr(validation, "run_for_real", run)
    monkeypatch.setattr(validation, "calibrate", lambda *_, **__: profile)

    def check(folder: Path, *stopped: int) -> list[dict[str, Any]]:
        finished.clear()
        stops.update(stopped)
        for again in range(len(stopped)):
            with pytest.raises(KeyboardInterrupt):
                crosscheck(MACHINE, design=DESIGN, out=folder, resume=again > 0)
        crosscheck(MACHINE, design=DESIGN, out=folder, resume=bool(stopped))
        assert len(finished) == 6
        said: list[dict[str, Any]] = json.loads((folder / "predictions.json").read_text())
        return [
            {name: one[name] for name in ("cell", "round", "throughput", "step", "probed")} for one in said
        ]

    whole = check(tmp_path / "whole")
    assert len({one["throughput"] for one in whole}) > 2
    assert check(tmp_path / "stopped", 3, 5) == whole
    rows = [json.loads((tmp_path / name / "probes.json").read_text()) for name in ("whole", "stopped")]
    assert rows[0] == rows[1]
    beside = [row["constants"][BESIDE]["value"] * 1e9 for row in rows[0] if row["small"]]
    assert beside == pytest.approx([SAID[0]] * FIRST + list(SAID[1:]))
    steps = [row["constants"].keys() for row in rows[0] if not row["small"]]
    assert len(steps) == 6, "after each round"
    assert all(set(names) == {"step_time.mean", "step_time.spread"} for names in steps)


def test_a_plan_counts_all_probes_of_a_workloads_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = calibrated()
    monkeypatch.setattr(validation, "run_for_real", lambda scene: simulate(profile.apply(scene)))
    monkeypatch.setattr(validation, "calibrate", lambda *_, **__: profile)

    def planned(first: int) -> float:
        monkeypatch.setattr("aladdin.probed.FIRST", first)
        folder = tmp_path / str(first)
        crosscheck(MACHINE, design=replace(DESIGN, repeats={}), out=folder)
        return float(json.loads((folder / "plan.json").read_text())["first_rounds"])

    native = {"algorithm.name": "asp", "run.links": "paced", "run.compute": "native"}
    once = sum(one.seconds(profile, SHARE) for one in refreshing(MACHINE.override(native), "paced"))
    assert once > 5
    assert planned(4) - planned(1) == pytest.approx(3 * once)


def test_how_steady_the_machine_was_is_told() -> None:
    first = Profile({"step_time.mean": constant(0.03)})
    pool = Probed({"w": first, "other": first})
    for turn, seconds in enumerate((0.030, 0.033, 0.027, 0.060, 0.0301)):
        pool.add(0, turn, "w", replace(first, constants={"step_time.mean": constant(seconds)}))
    pool.add(0, 5, "w", first)  # nothing was probed
    pool.add(0, 0, "other", replace(first, constants={"step_time.mean": constant(0.1)}))
    (found,) = pool.steadiness().items()
    assert found[0] == "w"
    own = found[1]
    assert (own["low"], own["median"], own["high"], own["probes"]) == (0.027, 0.0301, 0.060, 5)
    assert own["scatter"] == pytest.approx(1.4826 * (0.033 / 0.0301 - 1))
    (line,) = report.figures({**FIGURES, "steadiness": pool.steadiness()})[3:]
    assert "30.1 ms, 27 to 60 in 5 probes, scatter 14%: such a machine holds no prediction" in line
    calm = {"w": {**own, "scatter": 0.02}}
    assert report.figures({**FIGURES, "steadiness": calm})[-1].endswith("scatter 2%")


FIGURES = {
    "cells": 1, "median_error": 0.0, "p90_error": 0.0, "worst_error": 0.0, "worst_part_error": 0.0,
    "worst_cell": ["asp", 2, 1.0, "paced", "native"], "within_5_percent": 1.0, "rankings": 0,
    "rankings_wrong": [], "contended": {"cells": 0},
}  # fmt: skip


def test_what_scatters_is_probed_often_at_first_and_then_seldom() -> None:
    first = Profile({"step_time.mean": constant(0.03)})
    pool = Probed({"w": first, "other": first})
    often = []
    for turn in range(30):
        wanted = pool.wanted("w", native=True)
        often.append(sum(wanted))
        for small in wanted:
            pool.add(0, turn, "w", first, small)
        pool.add(0, turn, "w", first, small=False)  # after it
    assert often[0] == FIRST
    assert often[1 : ENOUGH - FIRST + 1] == [1] * (ENOUGH - FIRST)
    later = often[ENOUGH - FIRST + 1 :]
    assert sum(later) == pytest.approx(len(later) / SELDOM, abs=1)
    assert max(later) == 1
    assert pool.wanted("other", native=True) == [True] * FIRST
    assert pool.wanted("other", native=False) == [False]
