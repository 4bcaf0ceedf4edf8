"""Short trainings for real, each made once for all tests that look at it; and the same in virtual time."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

import scenarios
from core.record import Record
from scenarios import Scenario

__all__ = [
    "NATIVE", "SLOW", "STEPS", "WORKERS", "observed", "really", "scenario", "simulated", "virtually",
]  # fmt: skip

STEPS, WORKERS = 6, 3

NATIVE = "arsgd by gloo"
"""AR-SGD with the all-reduce of torch.distributed in place of messages."""

OPTIONS: dict[str, dict[str, Any]] = {
    "local_sgd": {"h": 2},
    "post_local_sgd": {"h": 2, "switch": 0.1},
    "diloco": {"h": 2},
    "ssp": {"s": 1},
    "dssp": {"s_l": 1, "s_u": 2},
    "sgp": {"overlap": 0},
    "gosgd": {"p": 0.5},
}
"""So that six steps show what the algorithm does; others have their defaults."""

SLOW = {"cluster.slowdowns": [{"kind": "fixed", "ranks": [0], "factor": 4}]}
CLUSTERS: dict[str, dict[str, Any]] = {"ssp": SLOW, "dssp": SLOW}
"""Where staleness is bounded one worker is slow, if there are others."""

Run = tuple[Record, dict[int, np.ndarray]]


def scenario(name: str, workers: int = WORKERS, **overrides: Any) -> Scenario:
    """Six steps of a small network on the digits, paced to 5 ms."""
    algorithm = "arsgd" if name == NATIVE else name
    fixed: dict[str, Any] = {
        "algorithm": {
            "name": algorithm, "lr": 0.05, "momentum": 0.9, **OPTIONS.get(algorithm, {}),
        },
        "workload.hidden": [16],
        "cluster.workers": workers, "cluster.servers.count": 2, "cluster.compute.mean": "5 ms",
        "run.steps": STEPS,
    }  # fmt: skip
    if name == NATIVE:
        fixed |= {"run.links": "native", "cluster.network.collective": "native"}
    if workers > 1:
        fixed |= CLUSTERS.get(algorithm, {})
    return scenarios.load("demo", fixed | overrides)


@cache
def really(name: str, workers: int = WORKERS) -> Run:
    """Record of a training on processes and sockets, and each node's parameters at its end."""
    return observed(scenario(name, workers))


def observed(made: Scenario, **faults: Any) -> Run:
    """Train for real; the parameters are those that the launcher gathers to evaluate the model."""
    from real import gather, train

    assemble, found = gather.assemble, {}

    def keep(plan: Any, tables: Any, params: Any, *rest: Any, **more: Any) -> Record:
        found.update({node: np.frombuffer(data, np.float32) for node, data in params.items()})
        return assemble(plan, tables, params, *rest, **more)

    gather.assemble = keep
    try:
        return train(made, **faults), found
    finally:
        gather.assemble = assemble


@cache
def virtually(name: str, workers: int = WORKERS) -> Run:
    """The same in the simulator, gradients one by one on one thread."""
    return simulated(scenario(name, workers))


def simulated(made: Scenario) -> Run:
    """Simulate with the real gradients of the scenario's model."""
    import torch

    from scenarios.plan import plan
    from scenarios.workloads import load
    from sim.driver import Driver
    from sim.numerics import TaskGradients

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        gradients = TaskGradients(load(made.workload, made.run.seed))
        driver = Driver(plan(made), gradients=gradients)
        record = driver.run()
        return record, {node.id: node.params.numpy() for node in driver.nodes}
    finally:
        torch.set_num_threads(threads)
