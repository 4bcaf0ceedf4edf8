"""What the real driver, or this machine, cannot do of a valid scenario.

Rules this module obeys: it refuses before a process is started, and says what would do instead.
"""

from __future__ import annotations

import os
import sys

from core.algorithms import in_main_module
from real import churn
from real.keys import check as check_keys
from real.shaped import check_shaped
from scenarios.errors import ScenarioError
from scenarios.plan import Plan
from scenarios.schema import Scenario

__all__ = ["check", "check_device"]

PROCESS = 15e6
"""Bytes of memory that a node's process has to itself, at least, beside its copies of the parameters."""


def check(plan: Plan) -> None:
    """Raise ``ScenarioError`` for a scenario that is valid but not possible here."""
    scenario = plan.scenario
    name = scenario.algorithm.name
    if in_main_module(name) and not getattr(sys.modules["__main__"], "__file__", None):
        why = (
            "a class of a module: processes of a real run can import a script, but no notebook and no prompt"
        )
        raise ScenarioError("algorithm.name", name, why)
    churn.check(plan)
    topology = scenario.cluster.topology
    if topology is not None and topology.joined:
        field, value = ("sites", topology.sites) if topology.sites else ("racks", topology.racks)
        count = value if isinstance(value, int) else len(value)
        why = (
            "nothing: all nodes run on this machine, where nothing plays up-links and WAN links; simulate it"
        )
        raise ScenarioError(f"cluster.{field}", count, why)
    if scenario.run.links == "shaped":
        check_shaped(plan)
    elif scenario.cluster.network.admission == "fair":
        raise ScenarioError(
            "cluster.network.admission",
            "fair",
            "fifo or a number, or run.links: shaped: only links shaped by the kernel are shared fairly",
        )
    network = scenario.cluster.network
    if plan.native and network.allreduce != "ring":
        why = "ring, or collective: messages (gloo and NCCL choose their native all-reduce themselves)"
        raise ScenarioError("cluster.network.allreduce", network.allreduce, why)
    if getattr(plan.algorithm, "overlap", None) == "backward" and scenario.run.compute == "native":
        why = "none, or run.compute: paced (a native step hands out its gradient as a whole)"
        raise ScenarioError("algorithm.overlap", "backward", why)
    if scenario.run.links == "paced":
        if scenario.cluster.network.admission not in ("fifo", 1):
            raise ScenarioError(
                "cluster.network.admission", scenario.cluster.network.admission,
                "fifo with run.links: paced (a paced link moves one message at a time)",
            )  # fmt: skip
        home: dict[int, int] = {}
        for node, machine in enumerate(plan.machine_of):
            if machine in home:
                name = scenario.cluster.machines[machine].name or str(machine)
                raise ScenarioError(
                    "run.links", "paced",
                    f"native, or one node per machine: nodes {home[machine]} and {node} share machine {name}",
                )  # fmt: skip
            home[machine] = node
    check_keys(scenario.run, plan.native)
    _check_memory(plan)
    check_device(scenario)


def _check_memory(plan: Plan) -> None:
    """Refuse more processes than fit, however little each needs: a worker its parameters, and a gradient."""
    nodes, workers = len(plan.machine_of), plan.workers
    copies = 0 if plan.scenario.run.device == "cuda" else 2 * workers
    least = nodes * PROCESS + copies * 4.0 * plan.parameters
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if least > memory:
        why = (
            f"fewer, or a smaller model: {nodes} processes need {least / 1e9:,.1f} GB of memory or more, "
            f"this machine has {memory / 1e9:,.1f} (simulate it)"
        )
        raise ScenarioError("cluster.workers", workers, why)


def check_device(scenario: Scenario) -> None:
    """Raise ``ScenarioError`` where the scenario wants a device that this machine has not."""
    if scenario.run.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ScenarioError("run.device", "cuda", "cpu: torch finds no CUDA device here")
