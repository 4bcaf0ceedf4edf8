"""The same faults, once in virtual time and once on real processes: both keep the same promises.

Who goes and comes in which order, the budget that the steadfast meet, the ledgers: all that does not hang
on how fast a machine is. A failure is seen again with ``both(name, seed)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq")

import real
from core.record import Record
from scenarios.schema import Scenario
from sim import simulate
from tests.real.promises import must_reconcile, of
from tests.real.runs import tiny

NAMES = ["asp", "bsp", "ssp", "aladdin", "easgd", "adpsgd", "gosgd", "arsgd"]
STEPS = 400
"""Of 10 ms each: who is to come has to come before the others are done, on a busy machine, too."""


def drawn(name: str, seed: int) -> Scenario:
    """Worker 0 is steadfast; each of the others dies, leaves or starts late, and most come back."""
    rng = np.random.default_rng([seed, *name.encode()])
    workers, faults = int(rng.integers(3, 5)), list[dict[str, Any]]()
    for rank in range(1, workers):
        kind = str(rng.choice(["crash", "leave", "join", "freeze"]))
        if kind == "join":
            faults.append({"kind": "join", "ranks": [rank], "at": float(rng.uniform(0.1, 0.6))})
            continue
        moment = (
            {"step": int(rng.integers(1, 40))} if rng.random() < 0.7 else {"at": float(rng.uniform(0, 0.6))}
        )
        back = {"back": float(rng.uniform(0.05, 0.4))} if kind == "freeze" or rng.random() < 0.7 else {}
        faults.append({"kind": kind, "ranks": [rank], **moment, **back})
    cluster: dict[str, Any] = {"servers": {"count": int(rng.integers(1, 3))}}
    if name == "arsgd":
        cluster["network"] = {"collective": "native"}
    made = tiny(
        name, workers, cluster=cluster, run={"steps": STEPS, "heartbeat_timeout": "30 s", "seed": seed}
    )
    return made.override({"faults": faults})


def both(name: str, seed: int) -> tuple[Record, Record]:
    """The record of the simulator, and that of real processes."""
    scenario = drawn(name, seed)
    return simulate(scenario), real.train(scenario)


def check(name: str, seed: int) -> None:
    virtual, measured = both(name, seed)
    must_reconcile(virtual)
    must_reconcile(measured)
    workers = int((virtual.nodes["role"] == "worker").sum())
    assert measured.manifest["lost"] == {}
    assert measured.nodes["steps"][0] == virtual.nodes["steps"][0] == STEPS
    for rank in range(workers):
        assert of(measured, rank) == of(virtual, rank), f"worker {rank}"
    for record in (virtual, measured):
        if not any(event == "crash" for rank in range(workers) for event, _ in of(record, rank)):
            assert record.nodes["lost"].sum() == 0


@pytest.mark.parametrize("name", ["bsp", pytest.param("adpsgd", marks=pytest.mark.slow), "aladdin"])
def test_both_drivers_play_the_same_faults(name: str) -> None:
    check(name, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("name", NAMES)
def test_both_drivers_play_the_same_faults_many_times(name: str, seed: int) -> None:
    check(name, seed)
