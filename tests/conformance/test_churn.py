"""Seeded churn on the simulator: crashes, leaves, late starts and returns, servers too, over all algorithms.

Every gradient has a coordinate of its own, whatever life of its worker computed it: how often it was applied
can be read off the parameters. A failure is seen again with ``churned(name, seed)``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import scenarios
from core.algorithms import ALGORITHMS
from core.record import PARTS
from scenarios import ScenarioError
from scenarios.plan import plan
from sim.faults import Faulty

JOINING = [name for name, kind in ALGORITHMS.items() if getattr(kind, "joins", False)]
SINGLE = ["asp", "ssp", "dssp", "aladdin", "aladdin_l1", "aladdin_l2"]
COLLECTIVE = [name for name in JOINING if ALGORITHMS[name].collective]
MOST = 100
"""Gradients that one worker may compute in all its lives; where all keep dying it may never end."""

SEEDS, MANY = 8, 400


class Endless(Exception):
    """The run goes on and on: everybody dies before the budget is met, and all begins anew."""


class Marks:
    """Gradient number k of worker i is the unit vector (i, k), once per server's slice."""

    def __init__(self, workers: int, servers: int) -> None:
        self.shape = (servers, workers, MOST)
        self.initial = np.zeros(servers * workers * MOST)
        self.made: Counter[int] = Counter()
        self.own_are_seen = False
        self.driver: Any = None
        self.last: dict[int, tuple[int, int]] = {}

    def __call__(self, params: Any, rank: int, step: int) -> Any:
        number, life = self.made[rank], self.driver.hosts[rank].incarnation
        if number == MOST:
            raise Endless
        before, last = self.last.get(rank, (life, None))
        if self.own_are_seen and before == life and last is not None:
            seen = self.shares(params)[:, rank, last]
            assert (seen > 1e-9).all(), f"worker {rank} goes on from a model without its own last gradient"
        self.last[rank] = (life, number)
        gradient = np.zeros(self.shape)
        gradient[:, rank, number] = 1.0
        self.made[rank] += 1
        return gradient.reshape(-1)

    def shares(self, flat: np.ndarray) -> np.ndarray:
        """(slices, workers, gradients): how much of each gradient is in ``flat``."""
        return -flat.reshape(-1, *self.shape[1:])


def _of(rng: np.random.Generator, *values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def faults(rng: np.random.Generator, workers: int, servers: int, joins: bool) -> list[dict[str, Any]]:
    """Some faults; some of such lists are refused."""
    found: list[dict[str, Any]] = []
    for rank in range(workers):
        moment = _of(rng, {"at": float(rng.uniform(0, 1.5))}, {"step": int(rng.integers(1, 12))})
        back = {"back": float(10 ** rng.uniform(-4, -0.3))} if joins and rng.random() < 0.7 else {}
        luck = rng.random()
        if luck < 0.3:
            found.append({"kind": _of(rng, "crash", "leave"), "ranks": [rank], **moment, **back})
        elif luck < 0.45 and joins:
            found.append({"kind": "join", "ranks": [rank], "at": float(rng.uniform(0.01, 1.0))})
    if rng.random() < 0.4:
        rate = {_of(rng, "crash", "leave"): float(rng.uniform(0.2, 2))}
        found.append(
            {"kind": "churn", **rate, **({"back": float(10 ** rng.uniform(-3, 0))} if joins else {})}
        )
    for server in range(servers):
        if rng.random() < 0.3:
            every = {"checkpoint_every": _of(rng, 0.0, 0.0, 0.2)}
            when = _of(
                rng, {"kind": "crash", "at": float(rng.uniform(0, 1.5))}, {"kind": "churn", "crash": 1.0}
            )
            found.append({"servers": [server], "back": float(10 ** rng.uniform(-3, 0)), **when, **every})
    return found


def _overlapped(rng: np.random.Generator) -> dict[str, Any]:
    overlap = _of(rng, "none", "backward")
    return {"algorithm.overlap": overlap, "algorithm.buckets": 3 if overlap == "backward" else 0}


def churned(name: str, seed: int) -> tuple[Faulty, Any, Marks] | None:
    """The run of that seed, and its record; None if what was drawn is refused."""
    rng = np.random.default_rng([seed, *name.encode()])
    kind = ALGORITHMS[name]
    workers, servers = int(rng.integers(2, 7)), int(rng.integers(1, 4))
    joins = name in JOINING
    marks = Marks(workers, servers)
    spread = _of(rng, 0.0, 0.5, 1.0)
    try:
        chosen = scenarios.load("demo", {
            "algorithm.name": name, "algorithm.lr": 1.0, "algorithm.lr_scaling": "none",
            "algorithm.momentum": 0.0,
            "cluster.workers": workers, "cluster.servers.count": servers, "run.steps": 20, "run.seed": seed,
            "run.links": "native", "cluster.network.collective": "native" if joins else "messages",
            "cluster.network.admission": _of(rng, "fifo", "fair", 2),
            "cluster.network.window": _of(rng, 1, 2, "unlimited"),
            "cluster.network.inbox": _of(rng, 1, 2, "unlimited"),
            "cluster.compute": {"model": "lognormal", "mean": 0.05, "spread": spread},
            "cluster.tensor_seconds": _of(rng, {}, {"apply": 0.03, "snapshot": 0.01}),
            "cluster.bandwidth": _of(rng, "100 MB/s", "1 MB/s", "100 kB/s"),
            "workload.parameters": len(marks.initial), "cluster.servers.sharding": "memory",
            **(_overlapped(rng) if name == "arsgd" else {}),
            "faults": faults(rng, workers, servers if kind.centralized else 0, joins),
        })  # fmt: skip
    except ScenarioError as refused:
        if not str(refused).startswith(("faults: nobody is left", "faults: all workers join later")):
            raise
        return None
    driver = marks.driver = Faulty(plan(chosen), gradients=marks)
    marks.own_are_seen = name in ("bsp", "asp", "ssp", "dssp")
    try:
        return driver, driver.run(), marks
    except Endless:
        assert any(fault.kind == "churn" for fault in chosen.faults)
        return None


def check(name: str, seed: int) -> int:
    """Run it, hold it to its promises; how many events there were."""
    found = churned(name, seed)
    if found is None:
        return 0
    driver, record, marks = found
    workers = record.nodes["role"] == "worker"
    steps = record.nodes["steps"][workers]
    made = np.array([marks.made[rank] for rank in range(len(steps))])
    # a gradient that overlaps is there before its step ends
    assert (steps == made if name != "arsgd" else steps <= made).all()
    total = sum(record.nodes[part] for part in PARTS)
    np.testing.assert_allclose(total, record.duration, rtol=1e-9)
    seconds = sum(record.steps[part] for part in PARTS[:-1])
    np.testing.assert_allclose(seconds, record.steps["end"] - record.steps["start"], rtol=1e-9, atol=1e-9)
    if driver.plan.accounts:
        fates = {fate: record.nodes[fate][workers] for fate in ("applied", "pending", "lost")}
        assert (sum(fates.values()) == steps).all(), (fates, steps)
        if not (record.events["event"] == 0).any():
            assert not fates["lost"].any()
        for host in driver.hosts[len(steps) :]:
            _applied_once(name, host.node, marks)
    for host in driver.hosts[: len(steps)] if name not in ("diloco", "sgp") else ():
        shares = marks.shares(host.node.params)
        assert shares.max(initial=0) <= 1 + 1e-9, f"worker {host.id} holds a gradient twice"
    if name == "arsgd":
        ended = [host.node for host in driver.hosts if not host.absent and host.node.step == 20]
        for node in ended[1:]:
            np.testing.assert_array_equal(node.params, ended[0].params)
    if name == "gosgd":
        assert record.nodes["weight"].sum() <= 1 + 1e-9
    return len(record.events["time"])


def _applied_once(name: str, server: Any, marks: Marks) -> None:
    """The slice holds what the ledger says was applied, each gradient once."""
    for rank, shares in enumerate(marks.shares(server.params)[0]):
        there = shares[np.abs(shares) > 1e-9]
        if name in SINGLE:
            np.testing.assert_allclose(there, 1 / marks.shape[1], rtol=1e-9)
        assert (there <= 1 + 1e-9).all()
        assert len(there) == server.ledger.applied.get(rank, 0), f"server {server.id}, worker {rank}"


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_churn_breaks_no_promise(name: str) -> None:
    events = sum(check(name, seed) for seed in range(SEEDS))
    assert events > SEEDS, "the schedules are as lively as they claim"


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_much_more_churn_breaks_no_promise(name: str) -> None:
    for seed in range(SEEDS, SEEDS + MANY):
        check(name, seed)
