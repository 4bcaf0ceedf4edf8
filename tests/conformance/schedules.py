"""Seeded schedules: everything about a scripted run follows from the algorithm's name and one number.

    python -m tests.conformance.schedules NAME SEED     runs that schedule again and tells its story

A schedule draws the cluster (workers, servers, window, inbox), the algorithm's options, how fast each
node and each link is, how many steps each worker makes, who dies at which turn and who slows down.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from core.algorithms import make
from tests.conformance.audit import Audit
from tests.conformance.contracts import CONTRACTS
from tests.conformance.scripted import Scripted
from tests.conformance.tags import Tags

__all__ = ["Schedule", "draw", "replayable", "run"]

MOST_STEPS = 7


@dataclass(frozen=True)
class Schedule:
    """One scripted run, but for the choices themselves.

    budgets  steps by worker; slow: turn -> (node, its speed from then on); crashes: turn -> worker
    """

    name: str
    workers: int
    servers: int
    budgets: dict[int, int]
    options: dict[str, Any] = field(default_factory=dict)
    window: float = 1
    inbox: float = 2
    speeds: dict[int, float] = field(default_factory=dict)
    links: dict[tuple[int, int], float] = field(default_factory=dict)
    slow: dict[int, tuple[int, float]] = field(default_factory=dict)
    crashes: dict[int, int] = field(default_factory=dict)
    seed: int = 0


def draw(name: str, seed: int) -> tuple[Schedule, np.random.Generator]:
    """The schedule of ``seed`` and the stream that its choices come from."""
    rng = np.random.default_rng([seed, *name.encode()])
    contract = CONTRACTS[name]
    workers = int(rng.integers(contract.fewest, 7))
    servers = int(rng.integers(1, 4))
    steps = int(rng.integers(1, MOST_STEPS + 1))
    nodes = range(workers + servers)
    uneven = rng.random() < 0.4
    speeds = {i: float(10 ** rng.uniform(-1.5, 0)) for i in nodes} if rng.random() < 0.6 else {}
    links = {}
    if rng.random() < 0.4:
        links = {(i, j): float(10 ** rng.uniform(-2, 0)) for i in nodes for j in nodes if i != j}
    slow = {_turn(rng): (int(rng.integers(len(nodes))), 0.01) for _ in range(rng.integers(3))}
    victims = rng.permutation(workers)[: int(rng.integers(workers))] if rng.random() < 0.4 else ()
    return Schedule(
        name=name,
        workers=workers,
        servers=servers,
        budgets={i: int(rng.integers(steps + 1)) if uneven and i < workers else steps for i in nodes},
        options=contract.options(rng, workers),
        window=(1, 1, 2, inf)[rng.integers(4)],
        inbox=(1, 2, 2, inf)[rng.integers(4)],
        speeds=speeds,
        links=links,
        slow=slow if rng.random() < 0.4 else {},
        crashes={_turn(rng): int(victim) for victim in victims},
        seed=seed,
    ), rng


def _turn(rng: np.random.Generator) -> int:
    """A turn: most runs take some hundred."""
    return int(10 ** rng.uniform(0, 2.8))


def run(
    schedule: Schedule, choose: Callable[[int], int], spoil: Callable[[Any], Any] | None = None
) -> tuple[Scripted, Audit]:
    """Run it, checking the algorithm's contract all along and at the end; raises ``AssertionError``.

    ``spoil`` puts another algorithm in the place of the one that is named, to see what the checks are worth.
    """
    contract = CONTRACTS[schedule.name]
    algorithm = make(schedule.name, schedule.options)
    algorithm = spoil(algorithm) if spoil is not None else algorithm
    servers = schedule.servers if algorithm.centralized else 1
    tags = Tags(schedule.workers, max(*schedule.budgets.values(), 1), servers)
    audit = Audit(algorithm, lambda audit: contract.during(audit, tags))
    driver = Scripted(
        audit,  # type: ignore[arg-type]
        tags.nodes(algorithm.centralized, schedule.seed),
        tags,
        schedule.budgets,
        choose,
        window=schedule.window,
        inbox=schedule.inbox,
        speeds=schedule.speeds,
        links=schedule.links,
    )
    audit.crashed = lambda: driver.crashed
    driver.run(schedule.crashes, limit=50_000, slow=schedule.slow)
    for node in audit.workers:
        if node.id not in driver.crashed:
            budget = schedule.budgets[node.id]
            assert node.step == budget, f"worker {node.id} made {node.step} of {budget} steps"
    contract.after(audit, tags)
    return driver, audit


@contextmanager
def replayable(name: str, seed: int, module: str = "schedules") -> Iterator[None]:
    """Failures inside say how to see them again."""
    try:
        yield
    except Exception as error:
        error.add_note(f"again with: python -m tests.conformance.{module} {name} {seed}")
        raise


def seeded(name: str, seed: int) -> tuple[Scripted, Audit]:
    """Run the schedule of ``seed``."""
    with replayable(name, seed):
        schedule, rng = draw(name, seed)
        return run(schedule, lambda count: int(rng.integers(count)))


class _Telling(Scripted):
    """Prints each action before it is taken."""

    def _pick(self, actions: list[tuple[Any, ...]]) -> int:
        index = super()._pick(actions)
        kind, what = actions[index]
        about = f"{what}"
        if kind == "resume":
            task = self.tasks[what]
            about = f"node {task.node.id}{'' if task.main else ' (companion)'} after {task.effect}"
        elif kind == "deliver":
            about = f"{what[0]} -> {what[1]}: {self.wires[what][0].tag} {self.wires[what][0].step}"
        print(f"{self.turns:4d} {kind:8s} {about}")
        return index


def _main(name: str, seed: int) -> None:
    schedule, rng = draw(name, seed)
    print(schedule)
    globals()["Scripted"] = _Telling
    driver, _ = run(schedule, lambda count: int(rng.integers(count)))
    print(f"kept its contract in {driver.turns} turns")


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
