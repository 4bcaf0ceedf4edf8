"""Real runs on links that the kernel shapes: every machine of the scenario is a namespace of a test-bed.

Rules this module obeys:

* What the test-bed does not play as the scenario has it is refused, or said in docs/testbed.md.
* A node may share its machine's links with others only where links are shared fairly: under ``fifo``
  nodes of one machine would have to take turns, and each of them has a queue of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from real.pacing import Links
from real.testbed import Nic, Testbed, check_nics, unavailable
from real.testbed.places import Place
from scenarios.addresses import LOOPBACK
from scenarios.errors import ScenarioError
from scenarios.plan import Plan

__all__ = ["MOST_LATENCY", "ShapedLinks", "check_shaped", "nics_of", "shaped_links", "test_bed"]

MOST_LATENCY = 0.5e-3
"""Seconds that a NIC may add to its paths: the kernel's own are not told from less, and it adds none."""


def check_shaped(plan: Plan) -> None:
    """Raise ``ScenarioError`` for what a test-bed cannot play, or where there can be none."""
    network, machines = plan.scenario.cluster.network, plan.scenario.cluster.machines
    if network.admission not in ("fifo", 1, "fair"):
        valid = "fifo or fair with run.links: shaped (a shaped link moves one message at a time, or all)"
        raise ScenarioError("cluster.network.admission", network.admission, valid)
    if plan.scenario.run.address != LOOPBACK:
        valid = f"{LOOPBACK}, the default, with run.links: shaped (nodes listen in their namespaces)"
        raise ScenarioError("run.address", plan.scenario.run.address, valid)
    used = sorted(set(plan.machine_of))
    check_nics(nics_of(plan), used)
    for machine in used:
        if machines[machine].latency > MOST_LATENCY:
            valid = f"at most {MOST_LATENCY:g} s with run.links: shaped (shaped links add no latency)"
            raise ScenarioError(f"cluster.machines[{machine}].latency", machines[machine].latency, valid)
    if network.admission != "fair" and len(used) < len(plan.machine_of):
        crowded = next(m for m in used if plan.machine_of.count(m) > 1)
        name = machines[crowded].name or str(crowded)
        nodes = [node for node, machine in enumerate(plan.machine_of) if machine == crowded]
        why = f"nodes {', '.join(map(str, nodes))} share machine {name}"
        raise ScenarioError(
            "run.links", "shaped", f"cluster.network.admission: fair, or one node per machine: {why}"
        )
    missing = unavailable()
    if missing is not None:
        raise ScenarioError(
            "run.links", "shaped",
            f"paced (on loopback, the senders keep the rates): there can be no test-bed here: {missing}",
        )  # fmt: skip


class ShapedLinks:
    """The test-bed of a run: where its nodes are, and their links."""

    def __init__(self, plan: Plan, bed: Testbed, at: dict[int, int]) -> None:
        self._plan, self._bed, self._at = plan, bed, at

    def place(self, node: int) -> Place:
        """Where ``node`` runs."""
        return self._bed.places[self._at[self._plan.machine_of[node]]]

    def alone(self, node: int) -> bool:
        """Whether no other node stands on its machine."""
        return self._plan.machine_of.count(self._plan.machine_of[node]) == 1

    def cut(self, node: int) -> None:
        """Silence all links of ``node``'s machine, both ways, until ``restore``."""
        self._bed.cut(self._at[self._plan.machine_of[node]])

    def restore(self, node: int) -> None:
        """Undo ``cut``."""
        self._bed.restore(self._at[self._plan.machine_of[node]])


@contextmanager
def test_bed(plan: Plan) -> Iterator[ShapedLinks | None]:
    """The test-bed of a checked ``plan``, removed in the end; None where its links are not shaped."""
    if plan.scenario.run.links != "shaped":
        yield None
        return
    used = sorted(set(plan.machine_of))
    fair = plan.scenario.cluster.network.admission == "fair"
    with Testbed(nics_of(plan), fair=fair) as bed:
        yield ShapedLinks(plan, bed, {machine: i for i, machine in enumerate(used)})


def nics_of(plan: Plan) -> list[Nic]:
    """The links of the machines that have nodes, in the order of the machines."""
    return [_nic(plan, machine) for machine in sorted(set(plan.machine_of))]


def shaped_links(plan: Plan) -> Links:
    """What the transport knows of shaped links: only under ``fifo`` does it matter when they run dry."""
    if plan.scenario.cluster.network.admission == "fair":
        return Links(paced=False)
    own = [_nic(plan, machine) for machine in plan.machine_of]
    return Links(paced=False, shaped=True, up=tuple(n.up for n in own), down=tuple(n.down for n in own))


def _nic(plan: Plan, machine: int) -> Nic:
    found = plan.scenario.cluster.machines[machine]
    return Nic(found.up, found.down)
