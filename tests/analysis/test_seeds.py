"""Means over seeds, intervals, mean curves: against values that follow by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis import metrics, seeds
from tests.analysis.fakes import STEP, make


def run(algorithm: str = "asp", seed: int = 0, outcome: str = "done", **more):
    record = make([STEP] * 2, curves=True, algorithm=algorithm)
    known = outcome == "done"
    return {
        "algorithm": algorithm, "seed": seed, "outcome": outcome, "message": more.pop("message", ""),
        "summary": metrics.summary(record) | more if known else None,
        "curves": record.curves if known else None, "path": None,
    }  # fmt: skip


@pytest.mark.parametrize("freedom", [*range(1, 40), 100, 10_000])
def test_students_quantiles(freedom: int) -> None:
    assert seeds.student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=2e-4)


def test_an_interval_covers_the_mean_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    found = [seeds.estimate(list(rng.normal(3.0, 2.0, size=5))) for _ in range(4000)]
    covered = np.mean([abs(one["mean"] - 3.0) <= one["half"] for one in found])
    assert covered == pytest.approx(0.95, abs=0.012)


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert seeds.estimate([None, 2.0, math.nan]) == {"mean": 2.0, "half": None, "count": 1}
    assert seeds.estimate([None, math.inf]) is None


def curves(accuracy, time=(0.0, 10.0, 20.0, 30.0)):
    return {"time": np.array(time), "epoch": np.array(time) / 10, "accuracy": np.array(accuracy)}


@pytest.mark.parametrize(
    ("accuracy", "time"),
    [
        ([0.1, 0.5, 0.9, 0.95], 12.5),
        ([0.1, 0.6, 0.9, 0.2], 10.0),
        ([0.1, 0.2, 0.8, 0.1], 10 + 10 * 2 / 3),
        ([0.7, 0.8, 0.9, 0.9], 0.0),
        ([0.1, 0.2, 0.3, 0.599], None),
        ([0.2, math.nan, 1.0, 1.0], 10.0),
    ],
)
def test_an_accuracy_is_reached_where_the_line_between_evaluations_crosses_it(accuracy, time) -> None:
    found = metrics.reached(curves(accuracy), 0.6)
    assert found == (None if time is None else pytest.approx(time))
    assert metrics.reached(curves(accuracy), 0.6, "epoch") == (
        None if time is None else pytest.approx(time / 10)
    )


def test_without_evaluations_nothing_is_reached() -> None:
    assert metrics.reached({}, 0.5) is None
    assert metrics.reached(curves([], ()), 0.5) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 1))
def test_a_higher_mark_is_never_reached_sooner(values, mark) -> None:
    table = curves(values, [float(k) for k in range(len(values))])
    low, high = metrics.reached(table, mark / 2), metrics.reached(table, mark)
    assert (high is None) == (max(values) < mark)
    if high is not None:
        assert low is not None
        assert low <= high + 1e-9


def test_consensus_is_the_mean_over_the_second_half_of_the_epochs() -> None:
    table = {"epoch": np.arange(5.0), "consensus": np.array([0.0, 100.0, 2.0, 4.0, 0.0])}
    assert metrics.consensus(table) == pytest.approx(2.0)
    assert metrics.consensus({"epoch": np.arange(2.0), "consensus": np.full(2, math.nan)}) is None


def test_figures_are_means_over_the_seeds_that_are_done() -> None:
    runs = [run(seed=k, throughput=100.0 + 10 * k) for k in range(3)] + [
        run(seed=3, outcome="diverged", message="loss is NaN at step 4 of worker 1")
    ]
    (found,) = seeds.condense(runs, 0.5)
    assert found["throughput"] == {
        "mean": 110.0,
        "half": pytest.approx(4.3027 * 10 / 3**0.5, rel=1e-4),
        "count": 3,
    }
    assert (found["runs"], found["outcomes"]) == (4, {"done": 3, "diverged": 1})
    assert found["messages"] == ["loss is NaN at step 4 of worker 1"]
    assert found["reached"] == 3
    # accuracy 1 - 0.8 / (1 + t) is 0.2 at 0 and 0.6 at 1
    assert found["time_to_accuracy"]["mean"] == pytest.approx(0.75)
    assert found["epochs_to_accuracy"]["mean"] == pytest.approx(0.375)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_mark_that_only_some_reach_is_averaged_over_those() -> None:
    runs = [run(seed=0), run(seed=1)]
    runs[1]["curves"] = {name: values[:2] for name, values in runs[1]["curves"].items()}
    (found,) = seeds.condense(runs, 0.7)
    assert (found["reached"], found["time_to_accuracy"]["count"]) == (1, 1)
    assert seeds.condense(runs, 0.99)[0]["time_to_accuracy"] is None
    assert seeds.condense(runs)[0]["reached"] is None


def test_algorithms_stand_in_the_order_of_the_table_and_users_own_come_last() -> None:
    names = ["mine:New", "arsgd", "asp", "bsp"]
    found = seeds.condense([run(name) for name in names])
    assert [one["algorithm"] for one in found] == ["bsp", "asp", "arsgd", "mine:New"]


def test_an_algorithm_without_a_finished_run_has_no_figures() -> None:
    (found,) = seeds.condense([run("bsp", outcome="refused", message="why")], 0.5)
    assert found["throughput"] is None
    assert found["breakdown"] is None
    assert found["outcomes"] == {"refused": 1}


def test_the_mean_of_breakdowns_adds_up() -> None:
    slower = {**STEP, "wait": 0.16}
    both = [metrics.summary(make([parts] * 2)) for parts in (STEP, slower)]
    entry = seeds.mean_summary(both)["breakdown"]["all"]
    assert entry["step"] == pytest.approx(0.25)
    assert entry["seconds"]["wait"] == pytest.approx(0.11)
    assert sum(entry["fraction"].values()) == pytest.approx(1.0)


def test_a_mean_curve_covers_what_all_seeds_cover() -> None:
    tables = [
        {"time": np.array([0.0, 10.0]), "loss": np.array([4.0, 2.0])},
        {"time": np.array([0.0, 5.0, 20.0]), "loss": np.array([2.0, 1.0, 1.0])},
        {"time": np.array([]), "loss": np.array([])},
    ]
    found = seeds.mean_curve(tables, "loss", "time", points=3)
    assert found["x"].tolist() == [0.0, 5.0, 10.0]
    assert found["mean"].tolist() == [3.0, 2.0, 1.5]
    assert found["low"].tolist() == [2.0, 1.0, 1.0]
    assert found["high"].tolist() == [4.0, 3.0, 2.0]


def test_one_seed_gives_its_own_points_without_a_band() -> None:
    table = {"time": np.array([1.0, 0.0]), "loss": np.array([3.0, 4.0])}
    found = seeds.mean_curve([table], "loss", "time")
    assert (found["x"].tolist(), found["mean"].tolist()) == ([0.0, 1.0], [4.0, 3.0])
    assert (found["low"] == found["high"]).all()
    assert len(seeds.mean_curve([table], "consensus", "time")["x"]) == 0
