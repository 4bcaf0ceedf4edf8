"""BSP: bulk-synchronous parallel SGD on parameter servers (C-PSGD).

    worker i                          server
    1  g_i <- gradient at x_i         1  receive a gradient from every live worker
    2  send g_i to the server         2  x~ <- x~ - eta mean(g)       (momentum lives here)
    3  wait for x~;  x_i <- x~        3  send x~ to all of them

A round is complete when all workers that have not left have contributed; a worker that dies after
its gradient arrived still counts in that round's mean, then no more. A joiner belongs to a server's round
from the moment at which it asks there. Rounds of two servers are one apart at most: it begins with the later
one, and passes the earlier (``_PASS``: it counts as arrived, and gets the model like all).

Invariants: after each round all replicas are bit-identical; the run equals SGD on the union of the
workers' batches.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from core.effects import Compute, Effect, Receive, Send
from core.joining import JOIN, VERSIONS, answer, expecting, fetch
from core.node import GRADIENT, LEFT, MODEL, Finished, Left, Message, Node, Program
from core.replica import ShardedModel

__all__ = ["BSP"]

_COMPUTE, _RECEIVE_MODEL = Compute(), Receive(MODEL)
_PASS = "bsp.pass"


@dataclass(frozen=True)
class BSP:
    """Bulk-synchronous parallel SGD; no options."""

    name: ClassVar[str] = "bsp"
    title: ClassVar[str] = "BSP (bulk-synchronous parallel, C-PSGD)"
    centralized: ClassVar[bool] = True
    collective: ClassVar[bool] = False
    joins: ClassVar[bool] = True

    def worker(self, node: Node) -> Program:
        model = ShardedModel(node)
        try:
            while True:
                gradient = yield _COMPUTE
                yield Send(*model.messages(gradient))
                yield from model.pull()
        except Finished:
            return

    def enter(self, node: Node) -> Generator[Effect, Any, None]:
        """Get the model and agree with all servers on the round to begin with."""
        replies = yield from fetch(node)
        node.step = max(reply.step for reply in replies.values())
        model = ShardedModel(node)
        behind = {s: reply.step for s, reply in replies.items() if reply.step < node.step}
        if behind:
            yield Send(*((server, Message(_PASS, None, step)) for server, step in behind.items()))
        for _ in behind:
            model.adopt((yield _RECEIVE_MODEL))
        node.memory[VERSIONS] = model.versions

    def server(self, node: Node) -> Program:
        tensors, ledger, x = node.tensors, node.ledger, node.params
        total = tensors.zeros_like(x)
        receive, members = expecting(node, GRADIENT, LEFT, *((_PASS,) if node.joins else ())), set(node.live)
        while True:
            arrived: dict[int, int] = {}
            summed = 0
            while not (arrived or summed) or not members <= arrived.keys():
                message = yield receive
                if type(message) is Left:
                    members.discard(message.rank)
                    arrived.pop(message.rank, None)
                elif message.tag == JOIN:
                    members.add(message.source)
                    yield answer(node, message, node.version)
                else:
                    if message.tag == GRADIENT:
                        ledger.hold(message.source, message.count, message.versions)
                        tensors.accumulate(total, message.tensor)
                        summed += 1
                    arrived[message.source] = message.step
            if summed:
                tensors.scale(total, 1 / summed)
                node.optimizer.apply(tensors, x, total, node.lr())
                ledger.settle(node.version)
            node.version += 1
            tensors.scale(total, 0.0)
            model = tensors.snapshot(x)
            replies = [
                (rank, Message(MODEL, model, step, versions=node.version)) for rank, step in arrived.items()
            ]
            if replies:
                yield Send(*replies)

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
