"""Faults injected into a real run: data, keyed by node and step."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from scenarios.errors import ScenarioError

__all__ = ["Faults"]


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and where.

    kill   node -> step at whose start a worker's process is killed; for a server, the number of
           messages that its program has read by then
    stall  node -> step, likewise, at which its process is stopped (it falls silent but lives)
    """

    kill: Mapping[int, int] = field(default_factory=dict)
    stall: Mapping[int, int] = field(default_factory=dict)

    def check(self, nodes: int) -> None:
        """Raise ``ScenarioError`` for nodes that do not exist and negative steps."""
        for kind, table in (("kill", self.kill), ("stall", self.stall)):
            for node, step in table.items():
                if not 0 <= node < nodes:
                    raise ScenarioError(f"faults.{kind}", node, f"a node between 0 and {nodes - 1}")
                if step < 0:
                    raise ScenarioError(f"faults.{kind}.{node}", step, "a step of at least 0")

    def strike(self, node: int, step: int) -> None:
        """Do what is planned for ``node`` at ``step`` to the calling process."""
        if self.kill.get(node) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.stall.get(node) == step:
            os.kill(os.getpid(), signal.SIGSTOP)
