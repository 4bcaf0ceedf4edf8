"""Short runs of one algorithm: on the scripted driver with the quadratic problem, or simulated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

import scenarios
from core.algorithms import make
from core.node import Node
from core.record import Record
from sim import simulate
from tests.conformance import problem
from tests.conformance.scripted import Scripted

__all__ = ["digest", "run", "simulated"]


class Watched(Scripted):
    """Calls ``look`` after every turn."""

    look: Callable[[], None] | None = None

    def _resume(self, index: int) -> None:
        super()._resume(index)
        if self.look is not None:
            self.look()


def run(
    name: str,
    options: dict[str, Any],
    seed: int = 0,
    *,
    workers: int = 3,
    servers: int = 1,
    steps: int | dict[int, int] = 6,
    crashes: dict[int, int] | None = None,
    gradient: Callable[[Any, int, int], Any] = problem.gradient,
    spoil: Callable[[list[Node]], None] | None = None,
    look: Callable[[list[Node], Scripted], None] | None = None,
    **knobs: Any,
) -> tuple[list[Node], Scripted]:
    algorithm = make(name, options)
    nodes = problem.build(workers, servers if algorithm.centralized else 0)
    if spoil is not None:
        spoil(nodes)
    rng = np.random.default_rng(seed)
    driver = Watched(algorithm, nodes, gradient, steps, lambda count: int(rng.integers(count)), **knobs)
    if look is not None:
        driver.look = lambda: look(nodes, driver)
    driver.run(crashes)
    return nodes, driver


def simulated(name: str, overrides: dict[str, Any]) -> Record:
    fixed: dict[str, Any] = {
        "cluster.workers": 4,
        "cluster.servers.count": 2,
        "cluster.compute": {"model": "lognormal", "mean": 0.05, "spread": 0.6},
    }
    if not {"run.seconds", "run.samples"} & overrides.keys():
        fixed["run.steps"] = 30
    return simulate(scenarios.load("demo", {"algorithm.name": name} | fixed | overrides))


def digest(record: Record) -> str:
    parts = [column.tobytes() for table in record.tables().values() for _, column in sorted(table.items())]
    return hashlib.sha256(b"".join(parts)).hexdigest()
