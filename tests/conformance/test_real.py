"""Every algorithm on real processes, sockets and gradients: the same invariants as on the other drivers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scenarios
from core.algorithms import ALGORITHMS
from core.record import PARTS, Record
from scenarios import Scenario

STEPS, WORKERS = 6, 2

OPTIONS: dict[str, dict[str, Any]] = {
    "local_sgd": {"algorithm.h": 2},
    "post_local_sgd": {"algorithm.h": 2, "algorithm.switch": 0.07},
    "diloco": {"algorithm.h": 2},
}
"""So that something is exchanged within ``STEPS``."""


def small(name: str, **overrides: Any) -> Scenario:
    fixed = {
        "algorithm.name": name, "workload.hidden": [16],
        "cluster.workers": WORKERS, "cluster.servers.count": 2,
        "run.steps": STEPS, "cluster.compute.mean": "5 ms", "algorithm.momentum": 0.9, "algorithm.lr": 0.05,
    }  # fmt: skip
    return scenarios.load("demo", fixed | OPTIONS.get(name, {}) | overrides)


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    """One run of every algorithm; AR-SGD by messages and by gloo."""
    from real import train

    native = small("arsgd", **{"run.links": "native", "cluster.network.collective": "native"})
    return {name: train(small(name)) for name in ALGORITHMS} | {"arsgd by gloo": train(native)}


RUNS = [*ALGORITHMS, "arsgd by gloo"]


@pytest.mark.parametrize("name", RUNS)
def test_every_second_and_every_gradient_is_accounted_for(name: str, records: dict[str, Record]) -> None:
    record = records[name]
    workers = record.nodes["role"] == "worker"
    assert (record.nodes["steps"][workers] == STEPS).all()
    total = sum(record.nodes[part] for part in PARTS)
    np.testing.assert_allclose(total, record.duration, rtol=1e-6, atol=1e-6)
    rows = sum(record.steps[part] for part in PARTS[:-1])
    np.testing.assert_allclose(rows, record.steps["end"] - record.steps["start"], rtol=1e-6, atol=1e-6)
    sent = STEPS * WORKERS if getattr(ALGORITHMS.get(name), "sends_gradients", True) else 0
    for server in np.flatnonzero(~workers):
        assert record.nodes["applied"][server] + record.nodes["pending"][server] == sent
    assert (record.nodes["lost"] == 0).all()


@pytest.mark.parametrize("name", ["bsp", "arsgd", "arsgd by gloo"])
def test_synchronous_equals_large_batch_sgd(name: str, records: dict[str, Record]) -> None:
    """The model that is evaluated at the end is that of SGD on the union of the workers' batches."""
    import torch

    from scenarios.workloads import load

    scenario = small("bsp")
    task = load(scenario.workload, scenario.run.seed)
    x = task.initial().clone()
    velocity = torch.zeros_like(x)
    for step in range(STEPS):
        gradients = [task.gradient(x, rank, step)[0] for rank in range(WORKERS)]
        velocity = 0.9 * velocity + torch.stack(gradients).mean(0)
        x = x - 0.05 * WORKERS * velocity
    loss, accuracy = task.evaluate(x)
    curves = records[name].curves
    assert curves["loss"][-1] == pytest.approx(loss, rel=1e-4)
    assert curves["accuracy"][-1] == pytest.approx(accuracy, abs=0.01)
    assert curves["consensus"][-1] <= 1e-10


def test_aladdin_worker_never_waits_under_coalesce(records: dict[str, Record]) -> None:
    steps = records["aladdin"].steps
    early = steps["step"] < STEPS - 1
    for part in ("send", "wait", "receive"):
        assert (steps[part][early] == 0).all()


def test_the_schema_is_the_simulators(records: dict[str, Record]) -> None:
    from sim import simulate

    simulated, measured = simulate(small("asp")), records["asp"]
    for name, table in simulated.tables().items():
        if table and name != "links":
            assert list(measured.tables()[name]) == list(table), name
            for column, values in table.items():
                assert measured.tables()[name][column].dtype.kind == values.dtype.kind, f"{name}.{column}"


@pytest.mark.parametrize("name", ["bsp", "arsgd", "local_sgd", "post_local_sgd", "diloco"])
def test_both_drivers_train_the_same_model(name: str, records: dict[str, Record]) -> None:
    """Real gradients in virtual time end where real processes end: one core, two drivers."""
    from scenarios.workloads import load
    from sim import simulate
    from sim.numerics import TaskGradients

    scenario = small(name)
    task = load(scenario.workload, scenario.run.seed)
    simulated = simulate(scenario, gradients=TaskGradients(task))
    for column in ("loss", "accuracy", "samples"):
        assert simulated.curves[column][-1] == pytest.approx(records[name].curves[column][-1], rel=1e-4)
