"""Faults of a scenario in the simulator: who goes, who comes, what is lost, what the record says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scenarios
from core.algorithms import ALGORITHMS
from core.record import EVENTS, PARTS, Record
from sim import simulate

JOINING = [name for name, kind in ALGORITHMS.items() if getattr(kind, "joins", False)]
ACCOUNTED = [
    name for name, kind in ALGORITHMS.items() if kind.centralized and getattr(kind, "sends_gradients", True)
]


def run(name: str, faults: list[dict[str, Any]], **more: Any) -> Record:
    fixed = {"algorithm.name": name, "run.links": "native", "cluster.network.collective": "native"}
    fixed |= {"run.steps": 20, "cluster.servers.count": 2, "faults": faults}
    return simulate(scenarios.load("demo", fixed | {key.replace("__", "."): v for key, v in more.items()}))


def events(record: Record) -> list[tuple[str, int]]:
    return [
        (EVENTS[e], n)
        for e, n in zip(record.events["event"].tolist(), record.events["node"].tolist(), strict=True)
    ]


def reconcile(name: str, record: Record) -> None:
    """Every second is booked; computed = applied + pending + lost; only those that died lost any."""
    total = sum(record.nodes[part] for part in PARTS)
    np.testing.assert_allclose(total, record.duration, rtol=1e-9)
    rows = record.steps
    assert (sum(rows[part] for part in PARTS[:-1]) - (rows["end"] - rows["start"]) < 1e-9).all()
    if name in ACCOUNTED:
        nodes = record.nodes
        workers = nodes["role"] == "worker"
        done = nodes["applied"] + nodes["pending"] + nodes["lost"]
        assert done[workers].tolist() == nodes["steps"][workers].tolist()
        died = {node for event, node in events(record) if event == "crash"}
        assert {int(i) for i in np.flatnonzero(nodes["lost"])} <= died


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_crashes_and_leaves_by_time_and_by_step(name: str) -> None:
    faults = [{"kind": "crash", "ranks": [1], "at": "0.42 s"}, {"kind": "leave", "ranks": [2], "step": 5}]
    record = run(name, faults)
    reconcile(name, record)
    steps = record.nodes["steps"]
    assert steps[[0, 3]].tolist() == [20, 20]
    assert steps[1] < 20
    assert steps[2] == 5
    assert sorted(events(record)) == [("crash", 1), ("leave", 2)]


@pytest.mark.parametrize("name", JOINING)
def test_who_has_crashed_comes_back_with_the_parameters_of_the_others(name: str) -> None:
    record = run(name, [{"kind": "crash", "ranks": [1], "at": 0.3, "back": 0.1}])
    reconcile(name, record)
    assert events(record) == [("crash", 1), ("join", 1), ("ready", 1)]
    crash, join, ready = record.events["time"].tolist()
    assert (crash, join) == (0.3, pytest.approx(0.4))
    assert ready > join + 0.03, "so many bytes take their time"
    assert record.nodes["steps"][[0, 2, 3]].tolist() == [20] * 3


def test_the_same_faults_and_seed_give_the_same_bytes() -> None:
    def digest(seed: int) -> list[bytes]:
        record = run("asp", [{"kind": "churn", "crash": "1/s", "back": 0.2}], run__seed=seed)
        return [v.tobytes() for table in record.tables().values() for _, v in sorted(table.items())]

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_churn_comes_at_its_rate() -> None:
    """Of 400 workers at 0.5 crashes per second each, away 0.1 s at a time, for 10 s."""
    record = run(
        "gosgd", [{"kind": "churn", "crash": "30 per min", "back": "0.1 s"}],
        cluster__workers=400, run__steps=0, run__seconds=10, workload__parameters=1000,
    )  # fmt: skip
    crashes = sum(event == "crash" for event, _ in events(record))
    expected = 400 * 10 / (2 + 0.1)
    assert abs(crashes - expected) < 5 * expected**0.5
