"""Algorithms that break a promise when somebody comes: they show what checks and shrinking are worth.

Rules this module obeys:

* Without the fault that it is about each of them is the algorithm that it claims to be.
"""

from __future__ import annotations

from typing import Any

from core.algorithms.asp import ASP
from core.algorithms.gosgd import GoSGD
from core.algorithms.ssp import SSP, serve
from core.gate import Gate
from core.joining import JOIN
from core.node import GRADIENT, Message, Node, Program

__all__ = ["Generous", "Hasty", "Twice"]


class Twice(ASP):
    """ASP whose server applies the last gradient of a worker again when that has come back."""

    def server(self, node: Node) -> Program:
        last: dict[int, Any] = {}
        program = super().server(node)
        value: Any = None
        while True:
            value = yield program.send(value)
            if type(value) is Message and value.tag == GRADIENT:
                last[value.source] = value.tensor.copy()
            elif type(value) is Message and value.tag == JOIN and value.source in last:
                node.params -= last[value.source] / node.workers


class Generous(GoSGD):
    """GoSGD that gives a joiner half of its weight and keeps all of it."""

    def share(self, node: Node) -> float:
        return node.weight / 2


class _Loose(Gate):
    def join(self, rank: int) -> list[int]:
        self.s += 100
        return super().join(rank)


class Hasty(SSP):
    """SSP whose servers forget the bound once somebody has come."""

    def server(self, node: Node) -> Program:
        return serve(node, _Loose(node.workers, self.s))
