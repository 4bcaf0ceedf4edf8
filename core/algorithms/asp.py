"""ASP: asynchronous parallel SGD on parameter servers (Hogwild-style; Recht et al. 2011).

    worker i                          server
    1  g_i <- gradient at x_i         1  receive g_i from any worker i
    2  send g_i to the server         2  x~ <- x~ - (eta / n) g_i     (momentum lives here)
    3  wait for x~;  x_i <- x~        3  send x~ to worker i

Nobody waits for anybody else's gradient; the server is the only point of contention, and the
parameters that a gradient was computed at may be old by the time it is applied (its staleness).

Invariant: every gradient is applied exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from core.effects import Compute, Receive, Send
from core.joining import JOIN, answer, expecting
from core.node import GRADIENT, MODEL, Finished, Message, Node, Program
from core.replica import ShardedModel

__all__ = ["ASP"]

_COMPUTE, MODELS = Compute(), Receive(MODEL)


@dataclass(frozen=True)
class ASP:
    """Asynchronous parallel SGD; no options."""

    name: ClassVar[str] = "asp"
    title: ClassVar[str] = "ASP (asynchronous parallel, Hogwild-style)"
    centralized: ClassVar[bool] = True
    collective: ClassVar[bool] = False
    joins: ClassVar[bool] = True

    def worker(self, node: Node) -> Program:
        model = ShardedModel(node)
        try:
            while True:
                gradient = yield _COMPUTE
                yield Send(*model.messages(gradient))
                for _ in node.shards:
                    model.adopt((yield MODELS))
                node.blends += 1
        except Finished:
            return

    def server(self, node: Node) -> Program:
        tensors, ledger, optimizer, x = node.tensors, node.ledger, node.optimizer, node.params
        receive = expecting(node, GRADIENT)
        while True:
            message = yield receive
            if message.tag == JOIN:
                yield answer(node, message)
                continue
            ledger.hold(message.source, message.count, message.versions)
            optimizer.apply(tensors, x, message.tensor, node.lr() / node.workers)
            ledger.settle(node.version)
            node.version += 1
            reply = Message(MODEL, tensors.snapshot(x), message.step, versions=node.version)
            yield Send((message.source, reply))

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
