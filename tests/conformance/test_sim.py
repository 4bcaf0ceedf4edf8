"""Every algorithm on SimPy with real numbers: the invariants of ALGORITHMS on uneven clusters."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scenarios
from analysis.metrics import breakdown
from core.algorithms import ALGORITHMS
from core.record import PARTS, Record
from scenarios import Scenario
from scenarios.plan import plan
from sim import simulate
from sim.driver import Driver
from tests.conformance import problem

ACCOUNTED = [
    name for name, kind in ALGORITHMS.items() if kind.centralized and getattr(kind, "sends_gradients", True)
]
GOSSIP = ["dpsgd", "adpsgd", "sgp", "gosgd"]
"""They need a peer."""

STEPS = 6

OPTIONS: dict[str, dict[str, Any]] = {
    "local_sgd": {"algorithm.h": 2},
    "post_local_sgd": {"algorithm.h": 2, "algorithm.switch": 0.05},
    "diloco": {"algorithm.h": 2},
}
"""So that something is exchanged within ``STEPS``."""

clusters = st.fixed_dictionaries({
    "cluster.workers": st.integers(1, 5),
    "cluster.servers.count": st.integers(1, 3),
    "cluster.network.admission": st.sampled_from(["fifo", "fair", 2]),
    "cluster.network.collective": st.just("messages"),
    "cluster.network.window": st.sampled_from([1, 2, "unlimited"]),
    "cluster.network.inbox": st.sampled_from([1, 2, "unlimited"]),
    "cluster.compute": st.sampled_from([
        {"model": "constant", "mean": 0.05},
        {"model": "lognormal", "mean": 0.05, "spread": 0.8},
        {"model": "shifted_exponential", "mean": 0.01, "spread": 1.0},
    ]),
    "cluster.bandwidth": st.sampled_from(["100 MB/s", "10 kB/s", "1 kB/s"]),
    "run.seed": st.integers(0, 1000),
})  # fmt: skip


class Numbers:
    """The quadratic problem as the simulator takes it."""

    initial = problem.initial()

    def __call__(self, params: Any, rank: int, step: int) -> Any:
        return problem.gradient(params, rank, step)


def small(name: str, overrides: dict[str, Any]) -> Scenario:
    fixed = {
        "algorithm.name": name,
        "workload.parameters": problem.SIZE,
        "run.steps": STEPS,
        "algorithm.lr": 0.05,
    }
    if name in GOSSIP:
        overrides = overrides | {"cluster.workers": max(2, overrides.get("cluster.workers", 4))}
    return scenarios.load("demo", fixed | OPTIONS.get(name, {}) | overrides)


def run(name: str, overrides: dict[str, Any]) -> Driver:
    driver = Driver(plan(small(name, overrides)), gradients=Numbers())
    driver.result = driver.run()  # type: ignore[attr-defined]
    return driver


@pytest.mark.parametrize("name", list(ALGORITHMS))
@given(cluster=clusters)
@settings(max_examples=15, deadline=None)
def test_every_second_and_every_gradient_is_accounted_for(name: str, cluster: dict[str, Any]) -> None:
    driver = run(name, cluster)
    record: Record = driver.result  # type: ignore[attr-defined]
    total = sum(record.nodes[part] for part in PARTS)
    np.testing.assert_allclose(total, record.duration, rtol=1e-9)
    rows = sum(record.steps[part] for part in PARTS[:-1])
    np.testing.assert_allclose(rows, record.steps["end"] - record.steps["start"], rtol=1e-9, atol=1e-12)
    workers = record.nodes["role"] == "worker"
    assert (record.nodes["steps"][workers] == STEPS).all()
    if name in ACCOUNTED:
        applied, pending = record.nodes["applied"][workers], record.nodes["pending"][workers]
        assert (applied + pending == STEPS).all()
        assert (record.nodes["lost"] == 0).all()


@pytest.mark.parametrize("name", ["bsp", "arsgd"])
@given(cluster=clusters)
@settings(max_examples=15, deadline=None)
def test_synchronous_equals_large_batch_sgd(name: str, cluster: dict[str, Any]) -> None:
    driver = run(name, cluster)
    workers = cluster["cluster.workers"]
    expected = problem.large_batch(workers, STEPS)
    first = driver.hosts[0].node.params
    for host in driver.hosts[:workers]:
        np.testing.assert_allclose(host.node.params, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(host.node.params, first)


@given(cluster=clusters)
@settings(max_examples=25, deadline=None)
def test_aladdin_worker_never_waits_under_coalesce(cluster: dict[str, Any]) -> None:
    """Its parts in every step but the last, which holds the final flush."""
    record: Record = run("aladdin", cluster).result  # type: ignore[attr-defined]
    early = record.steps["step"] < STEPS - 1
    for part in ("send", "wait", "receive"):
        assert (record.steps[part][early] == 0).all()


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    def digest(seed: int) -> str:
        uneven = {
            "cluster.compute": {"model": "gamma", "mean": 0.02, "spread": 0.5},
            "run.seed": seed,
            "run.spans": True,
        }
        record = simulate(small(name, uneven))
        parts = [
            column.tobytes() for table in record.tables().values() for _, column in sorted(table.items())
        ]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_a_contended_server_makes_asp_wait_and_not_aladdin() -> None:
    """The reason why the paper exists (Figure 2), in numbers: 4 x 36 ms of traffic against 50 ms steps."""
    parts = {
        name: breakdown(simulate(scenarios.load("demo", {"algorithm.name": name})))
        for name in ("asp", "aladdin")
    }
    assert parts["asp"]["step"] == pytest.approx(4 * 0.036, rel=0.01)
    assert parts["aladdin"]["step"] == pytest.approx(0.05, rel=1e-6)
