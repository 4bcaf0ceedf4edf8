"""AR-SGD: synchronous SGD by all-reduce, without servers.

    worker i
    1  g_i <- gradient at x_i
    2  g <- mean of g_1 .. g_n over the live workers     (all-reduce)
    3  x_i <- x_i - eta g                                (momentum lives here)

Invariants: all replicas stay identical; the run equals SGD on the union of the workers' batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from core.effects import AllReduce, Compute
from core.node import Finished, Node, Program

__all__ = ["ARSGD"]

_COMPUTE = Compute()


@dataclass(frozen=True)
class ARSGD:
    """All-reduce SGD; no options (the all-reduce itself is chosen in ``cluster.network``)."""

    name: ClassVar[str] = "arsgd"
    title: ClassVar[str] = "AR-SGD (synchronous, all-reduce)"
    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = True

    def worker(self, node: Node) -> Program:
        try:
            while True:
                gradient = yield _COMPUTE
                yield AllReduce(gradient)
                node.optimizer.apply(node.tensors, node.params, gradient, node.lr())
        except Finished:
            return

    def server(self, node: Node) -> Program:
        raise NotImplementedError("AR-SGD has no servers")

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
