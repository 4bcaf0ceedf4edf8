"""Seeded schedules in which nodes come, go and fall silent, on the scripted driver: any order can occur.

    python -m tests.conformance.scripted_churn NAME SEED     runs that schedule again

What is promised is what ``tests.conformance.dst`` asks for, as far as a driver without time and records shows
it: no gradient is applied twice, ledgers agree with parameters, only the crashed lose any, nobody is further
ahead than is allowed, nothing reaches a former life, weights do not grow, everybody ends.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import numpy as np

from core.algorithms import ALGORITHMS, make
from core.effects import Compute
from core.node import Node
from core.optimizer import MomentumSGD, Schedule
from core.record import Ledger
from core.sharding import partition
from core.tensors import Tensors
from scenarios.streams import stream
from tests.conformance.churning import Churning, Event
from tests.conformance.contracts import CONTRACTS
from tests.conformance.lives import EXACT, Endless, Marks
from tests.conformance.schedules import draw, replayable
from tests.conformance.scripted import Task

__all__ = ["NAMES", "seeded"]

NAMES = [name for name, kind in ALGORITHMS.items() if getattr(kind, "joins", False) and not kind.collective]
"""Who takes in joiners without a native all-reduce."""

MOST = 60
SINGLE = ("asp", "ssp", "dssp")


class _Held(Churning):
    """Looks at who begins a step."""

    bound: float | None = None

    def _begin(self, task: Task, effect: Any) -> None:
        super()._begin(task, effect)
        if self.bound is not None and isinstance(effect, Compute) and task.failure is None:
            steps = [self.nodes[rank].step for rank in self.present - self.entering]
            apart = task.node.step - min(steps)
            assert apart <= self.bound, f"worker {task.node.id} begins a step {apart} ahead, not {self.bound}"


Faults = tuple[dict[int, list[Event]], frozenset[int]]


def _events(rng: np.random.Generator, workers: int, servers: range) -> Faults:
    """What befalls whom, and who is late."""
    found: dict[int, list[Event]] = {}
    late = frozenset(rank for rank in range(1, workers) if rng.random() < 0.15)

    def add(kind: str, node: int, turn: int, length: int = 0) -> None:
        found.setdefault(turn, []).append((kind, node, length))

    for rank in range(workers):
        turn = int(10 ** rng.uniform(0, 2.3))
        if rank in late:
            add("join", rank, turn)
        for _ in range(int(rng.integers(3))):
            turn += int(10 ** rng.uniform(0, 2.3))
            kind = ("crash", "leave", "freeze", "cut")[rng.integers(4)]
            add(kind, rank, turn, int(10 ** rng.uniform(0, 2)))
            if kind in ("crash", "leave") and rng.random() < 0.8:
                turn += int(10 ** rng.uniform(0, 2))
                add("join", rank, turn)
    for server in servers:
        if rng.random() < 0.3:
            add(("freeze", "cut")[rng.integers(2)], server, int(10 ** rng.uniform(0, 2.3)), 50)
    return found, late


def seeded(name: str, seed: int) -> Counter[str]:
    """Run the schedule of ``seed``; what befell whom."""
    with replayable(name, seed, "scripted_churn"):
        return _run(name, seed)


def _run(name: str, seed: int) -> Counter[str]:
    schedule, rng = draw(name, seed)
    algorithm = make(name, schedule.options)
    workers = max(schedule.workers, CONTRACTS[name].fewest)
    slices = schedule.servers if algorithm.centralized else 1
    marks = Marks(workers, slices, MOST)
    servers = range(workers, workers + slices) if algorithm.centralized else range(0)
    shards = partition([marks.initial.size], list(servers)) if servers else ()
    sizes = {shard.server: shard.size for shard in shards}

    def fresh(id: int) -> Node:
        return Node(
            id, workers, np.zeros(sizes.get(id, marks.initial.size)), shards, Tensors(), MomentumSGD(0.0),
            Schedule(1.0, workers, "none"), ledger=Ledger(id),
            stream=lambda node, purpose: stream(seed, node, purpose),
        )  # fmt: skip

    events, late = _events(rng, workers, servers)
    driver = _Held(
        algorithm, [fresh(id) for id in (*range(workers), *servers)], marks, schedule.budgets,
        lambda count: int(rng.integers(count)), window=schedule.window, inbox=schedule.inbox,
        speeds=schedule.speeds, links=schedule.links, fresh=fresh, events=events, late=late,
    )  # fmt: skip
    s = {"ssp": "s", "dssp": "s_u"}.get(name)
    driver.bound = getattr(algorithm, s) + 1 if s else 1 if name == "bsp" else None
    try:
        driver.run(limit=50_000)
    except Endless:
        return Counter()
    _check(name, driver, marks, schedule.budgets)
    return driver.struck


def _check(name: str, driver: Churning, marks: Marks, budgets: dict[int, int]) -> None:
    nodes, workers = driver.nodes, marks.shape[1]
    for rank in driver.met:
        made, budget = nodes[rank].step, budgets[rank]
        assert made >= budget, f"worker {rank} made {made} of {budget} steps"
    for id, node in nodes.items():
        shares = marks.shares(node.params)
        assert shares.max(initial=0) <= 1 + EXACT, f"node {id} holds a gradient to {shares.max()!r}"
        if id < workers or not getattr(driver.algorithm, "sends_gradients", True):
            continue
        pending = node.ledger.pending()
        for rank, of_rank in enumerate(shares[0]):
            there, who = of_rank[np.abs(of_rank) > EXACT], f"server {id}, gradients of worker {rank}"
            applied = node.ledger.applied.get(rank, 0)
            assert len(there) == applied, f"{who}: {len(there)} in the parameters, {applied} in the ledger"
            if name in SINGLE:
                assert np.allclose(there, 1 / workers, rtol=1e-9), f"{who}: applied as {there}"
            lost = marks.made[rank] - applied - pending.get(rank, 0)
            assert lost >= 0, f"{who}: {-lost} more than there were"
            assert lost == 0 or rank in driver.ever_crashed, f"{who}: {lost} lost"
    if name == "gosgd":
        most = 1 + driver.began_anew / workers
        assert driver.weight <= most + EXACT, f"there is {driver.weight} of all weight, {most}"


if __name__ == "__main__":
    print(seeded(sys.argv[1], int(sys.argv[2])))
