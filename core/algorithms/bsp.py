"""BSP: bulk-synchronous parallel SGD on parameter servers (C-PSGD).

    worker i                          server
    1  g_i <- gradient at x_i         1  receive a gradient from every live worker
    2  send g_i to the server         2  x~ <- x~ - eta mean(g)       (momentum lives here)
    3  wait for x~;  x_i <- x~        3  send x~ to all of them

A round is complete when all workers that have not left have contributed; a worker that dies after
its gradient arrived still counts in that round's mean, then no more.

Invariants: after each round all replicas are bit-identical; the run equals SGD on the union of the
workers' batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from core.effects import Compute, Receive, Send
from core.node import GRADIENT, LEFT, MODEL, Finished, Left, Message, Node, Program
from core.replica import ShardedModel

__all__ = ["BSP"]

_COMPUTE, _RECEIVE = Compute(), Receive((GRADIENT, LEFT))


@dataclass(frozen=True)
class BSP:
    """Bulk-synchronous parallel SGD; no options."""

    name: ClassVar[str] = "bsp"
    title: ClassVar[str] = "BSP (bulk-synchronous parallel, C-PSGD)"
    centralized: ClassVar[bool] = True
    collective: ClassVar[bool] = False

    def worker(self, node: Node) -> Program:
        model = ShardedModel(node)
        try:
            while True:
                gradient = yield _COMPUTE
                yield Send(*model.messages(gradient))
                yield from model.pull()
        except Finished:
            return

    def server(self, node: Node) -> Program:
        tensors, ledger, x = node.tensors, node.ledger, node.params
        total = tensors.zeros_like(x)
        while True:
            arrived: dict[int, int] = {}
            while not arrived or not node.live <= arrived.keys():
                message = yield _RECEIVE
                if type(message) is not Left:
                    ledger.hold(message.source, message.count, message.versions)
                    tensors.accumulate(total, message.tensor)
                    arrived[message.source] = message.step
            tensors.scale(total, 1 / len(arrived))
            node.optimizer.apply(tensors, x, total, node.lr())
            ledger.settle(node.version)
            node.version += 1
            tensors.scale(total, 0.0)
            model = tensors.snapshot(x)
            yield Send(
                *(
                    (rank, Message(MODEL, model, step, versions=node.version))
                    for rank, step in arrived.items()
                )
            )

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
