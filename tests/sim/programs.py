"""Helpers of the simulator's tests: small scenarios, and node programs given as functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from core.effects import Compute
from core.node import Finished, Message, Node, Program
from core.record import PARTS, Record
from core.tensors import Phantom
from scenarios.plan import Plan, plan
from scenarios.schema import Scenario
from sim.driver import Driver

GB = 1e9


def scenario(workers: int = 2, steps: int = 3, algorithm: str = "asp", **cluster: Any) -> Scenario:
    """1 GB/s NICs without latency, constant steps of one second, a model of 1 GB."""
    defaults: dict[str, Any] = {"workers": workers, "bandwidth": GB, "compute": {"mean": 1.0}}
    return Scenario.from_dict(
        {
            "cluster": {**defaults, **cluster},
            "workload": {"parameters": 250_000_000, "batch": 1},
            "algorithm": {"name": algorithm},
            "run": {"steps": steps},
        }
    )


class Programs:
    """An algorithm out of plain functions."""

    name, title = "test", "test"
    collective = False

    def __init__(
        self,
        worker: Callable[[Node], Program],
        server: Callable[[Node], Program] | None = None,
        companions: Callable[[Node], Iterable[Program]] | None = None,
    ) -> None:
        self.worker = worker
        self.companions = companions or _none
        self.server = server or _nothing
        self.centralized = server is not None


def _none(node: Node) -> Iterable[Program]:
    return ()


def _nothing(node: Node) -> Program:
    return
    yield Compute()


def driver(chosen: Scenario, algorithm: Programs, **options: Any) -> Driver:
    """A driver that runs ``algorithm`` in place of the scenario's."""
    made: Plan = plan(chosen)
    if not algorithm.centralized:
        made = replace(made, shards=(), servers=(), machine_of=made.machine_of[: made.workers])
    return Driver(replace(made, algorithm=algorithm), **options)  # type: ignore[arg-type]


def message(tag: str, gigabytes: float = 0.0, step: int = 0) -> Message:
    """A message of so many GB; a second each at full rate."""
    return Message(tag, Phantom(gigabytes * GB / 4), step)


def steps(node: Node, each: Callable[[Node], Program] | None = None) -> Program:
    """Compute until the budget is met; ``each`` runs after every step."""
    try:
        while True:
            yield Compute()
            if each is not None:
                yield from each(node)
    except Finished:
        return


def parts(record: Record, node: int) -> dict[str, float]:
    """Seconds of one node by part."""
    return {part: float(record.nodes[part][node]) for part in PARTS}
