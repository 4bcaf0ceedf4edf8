"""How well fits fit: good ones are plausible, outliers are seen, residuals are those of the fitted line."""

from __future__ import annotations

import numpy as np
import pytest

import scenarios
from analysis import goodness
from analysis.calibrate import fit_allreduce, fit_links, fit_steps
from core.record import Record
from sim import simulate


def probe(name: str, **fields: object) -> Record:
    given = {"algorithm.name": f"core.probes:{name}", "cluster.workers": 2, "run.compute": "native"}
    return simulate(scenarios.load("demo", {**given, **fields}))


def test_a_distribution_that_fits_is_plausible_and_one_with_outliers_is_not() -> None:
    compute = {"model": "gamma", "mean": 0.05, "spread": 0.2}
    record = probe("StepProbe", **{"cluster.compute": compute, "run.steps": 100})
    fit, _ = fit_steps(record, "step_time")
    found = goodness.steps(record, fit)
    assert found["p"] > 0.05
    assert len(found["times"]) == 196
    assert goodness.steps(record, fit) == found, "the same every time"
    late = np.arange(len(record.steps["compute"])) % 25 == 0
    record.steps["compute"] = np.where(late, 1.0, record.steps["compute"])
    fit, _ = fit_steps(record, "step_time")
    assert goodness.steps(record, fit)["p"] < 0.01


def test_constant_steps_fit_exactly() -> None:
    record = probe("StepProbe", **{"run.steps": 20})
    fit, _ = fit_steps(record, "step_time")
    assert (fit.model, goodness.steps(record, fit)["p"]) == ("constant", 1.0)


def test_lines_leave_nothing_over_where_links_are_lines() -> None:
    record = probe("LinkProbe", **{"run.steps": 1, "cluster.network.overhead": "200 us"})
    stream = goodness.links(record)["lines"]["stream"]
    assert stream["r2"] == pytest.approx(1.0)
    assert stream["residual"] < 1e-9
    assert stream["intercept"] == pytest.approx(2e-4)
    assert 1 / stream["slope"] == pytest.approx(fit_links(record, "link.paced")["link.paced.bandwidth"].value)


def test_a_size_off_the_line_shows_as_residual() -> None:
    record = probe("AllReduceProbe", **{"run.steps": 1, "cluster.network.allreduce_bandwidth": "500 MB/s"})
    assert goodness.allreduce(record, 2)["lines"]["2 workers"]["residual"] < 1e-5
    largest = record.observations["bytes"] == record.observations["bytes"].max()
    record.observations["seconds"] = record.observations["seconds"] * np.where(largest, 1.5, 1.0)
    bent = goodness.allreduce(record, 2)["lines"]["2 workers"]
    assert bent["residual"] > 0.1
    assert bent["r2"] < 1
    assert fit_allreduce(record, 2)["allreduce.bandwidth.2"].value < 5e8
