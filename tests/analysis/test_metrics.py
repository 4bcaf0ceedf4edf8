"""Figures of merit, against values that follow from the definitions by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import metrics
from core.record import PARTS
from tests.analysis.fakes import STEP, make


def test_equal_workers_throughput_is_samples_over_step_time() -> None:
    record = make([STEP] * 4, batch=10)
    assert metrics.throughput(record) == pytest.approx(4 * 10 / 0.2)
    assert metrics.window(record).kind == "steady"


def test_speedup_is_over_a_worker_that_never_communicates() -> None:
    record = make([STEP] * 4)
    assert metrics.speedup(record) == pytest.approx(4 * 0.1 / 0.2)


def test_slow_worker_counts_at_its_own_rate() -> None:
    fast, slow = {"compute": 0.1}, {"compute": 0.4}
    record = make([fast, slow], steps=20, warmup=2, batch=8)
    within = metrics.window(record)
    assert (within.start, within.stop) == (pytest.approx(0.8), pytest.approx(1.9))
    assert metrics.rates(record) == {0: pytest.approx(80), 1: pytest.approx(20)}


def test_the_drain_in_a_last_step_does_not_count() -> None:
    record = make([STEP] * 2, steps=10)
    before = metrics.throughput(record)
    last = record.steps["step"] == 9
    record.steps["end"][last] += 5.0
    record.steps["send"][last] += 5.0
    assert metrics.throughput(record) == pytest.approx(before)
    assert metrics.breakdown(record)["fraction"]["send"] == pytest.approx(0.1)


def test_no_window_falls_back_to_the_whole_run_and_says_so() -> None:
    record = make([STEP] * 2, steps=1, warmup=2, batch=10)
    assert metrics.window(record).kind == "whole run"
    assert metrics.throughput(record) == pytest.approx(2 * 10 / 0.2)


def test_a_run_without_steps_has_zero_rates() -> None:
    record = make([STEP] * 2, steps=0, servers=0)
    summary = metrics.summary(record)
    assert summary["throughput"] == summary["speedup"] == summary["step"] == 0.0
    assert summary["staleness"] is None


def test_breakdown_of_slow_and_fast_workers() -> None:
    fast, slow = {"compute": 0.1, "wait": 0.1}, {"compute": 0.4}
    cluster = {"slowdowns": [{"kind": "fixed", "ranks": [1], "factor": 4.0}]}
    record = make([fast, slow], steps=20, cluster=cluster)
    parts = metrics.summary(record)["breakdown"]
    assert parts["fast"]["seconds"] == pytest.approx(
        {"compute": 0.1, "update": 0, "send": 0, "wait": 0.1, "receive": 0}
    )
    assert parts["slow"]["fraction"]["compute"] == pytest.approx(1.0)
    assert parts["all"]["step"] < parts["slow"]["step"]


def test_slow_devices_are_slow_workers() -> None:
    record = make([STEP] * 3, cluster={"compute": {"mean": 0.1, "scale": [1.0, 2.0, 1.0]}})
    assert metrics.slow_ranks(record) == {1}


def test_staleness_weighs_messages_by_their_gradients() -> None:
    found = metrics.staleness(make([STEP] * 2))
    assert found == {"mean": pytest.approx(2.0), "p95": 11.0, "max": 11.0}


def test_busiest_node_is_the_server() -> None:
    found = metrics.busiest(make([STEP] * 4, steps=6))
    assert (found["node"], found["role"], found["bytes"]) == (4, "server", 150 * 6 * 4)


def test_native_compute_is_its_own_baseline() -> None:
    record = make([STEP] * 2, driver="real", run={"compute": "native"}, cluster={"compute": {"mean": 9.0}})
    assert metrics.step_seconds(record) == pytest.approx(0.1)


def test_summary_is_strict_json_and_holds_the_last_evaluation() -> None:
    summary = metrics.summary(make([STEP] * 2, curves=True))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["accuracy"] == pytest.approx(1 - 0.8 / 5)


seconds = st.floats(1e-3, 10.0)
shares = st.fixed_dictionaries(dict.fromkeys(PARTS[:-1], seconds))


@settings(max_examples=60, deadline=None)
@given(st.lists(shares, min_size=1, max_size=5), st.integers(1, 8), st.integers(0, 4))
def test_whatever_the_steps_figures_are_finite_and_fractions_add_up(parts, steps, warmup) -> None:
    record = make(parts, steps=steps, warmup=warmup)
    found = metrics.breakdown(record)
    assert sum(found["fraction"].values()) == pytest.approx(1.0)
    assert sum(found["seconds"].values()) == pytest.approx(found["step"])
    assert math.isfinite(metrics.throughput(record))
    assert metrics.throughput(record) > 0
    weight = metrics.window(record).weight
    assert np.all((weight >= 0) & (weight <= 1))


def test_a_straggler_still_warming_up_shortens_the_warm_up() -> None:
    fast, slow = {"compute": 0.1}, {"compute": 1.0}
    record = make([fast, slow], steps=50, warmup=5, batch=10)
    within = metrics.window(record)
    assert (within.kind, within.warmup) == ("short warm-up", 2)
    assert (within.start, within.stop) == (pytest.approx(2.0), pytest.approx(4.9))
    assert metrics.throughput(record) == pytest.approx(110)


def test_warm_up_longer_than_the_run_is_cut() -> None:
    record = make([STEP] * 2, steps=6, warmup=100, batch=10)
    assert metrics.window(record).kind == "short warm-up"
    assert metrics.throughput(record) == pytest.approx(100)
