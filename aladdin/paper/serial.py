"""ASP with a server that serves one worker at a time, as an MPI process with blocking calls does.

    worker i                                    server
    1  g_i <- gradient at x_i
    2  ask;  wait until the server turns to it  1  turn to whoever asked first
    3  send g_i                                 2  receive g_i;  x~ <- x~ - (eta / n) g_i
    4  receive x~;  x_i <- x~;  thank           3  send x~, and wait until it has arrived

Large MPI messages move when their receiver has posted a receive, and a blocking send returns when they have
been taken. So nothing of one worker's exchange overlaps with another's: the server's two directions of the
link and its tensor work take turns. The paper's Figure 2 is of this kind (docs/paper.md); with ``asp``
they overlap.

Invariant: every gradient is applied exactly once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from core.effects import Compute, Receive, Send
from core.node import GRADIENT, MODEL, Finished, Left, Message, Node, Program
from core.replica import ShardedModel

__all__ = ["SerialASP"]

_ASK, _TURN, _THANKS = "serial.ask", "serial.turn", "serial.thanks"


@dataclass(frozen=True)
class SerialASP:
    """ASP whose servers finish with one worker before they turn to the next; no options."""

    name: ClassVar[str] = "serial_asp"
    title: ClassVar[str] = "ASP, served one at a time"
    centralized: ClassVar[bool] = True
    collective: ClassVar[bool] = False

    def worker(self, node: Node) -> Program:
        model = ShardedModel(node)
        try:
            while True:
                gradient = yield Compute()
                for server, message in model.messages(gradient):
                    yield Send((server, Message(_ASK)))
                    yield Receive(_TURN, server)
                    yield Send((server, message))
                    model.adopt((yield Receive(MODEL, server)))
                    yield Send((server, Message(_THANKS)))
                node.blends += 1
        except Finished:
            return

    def server(self, node: Node) -> Program:
        tensors, ledger, x = node.tensors, node.ledger, node.params
        while True:
            worker = (yield Receive(_ASK)).source
            yield Send((worker, Message(_TURN)))
            message = yield Receive(GRADIENT, worker)
            if type(message) is Left:
                continue
            ledger.hold(worker, message.count, message.versions)
            node.optimizer.apply(tensors, x, message.tensor, node.lr() / node.workers)
            ledger.settle(node.version)
            node.version += 1
            reply = Message(MODEL, tensors.snapshot(x), message.step, versions=node.version)
            yield Send((worker, reply))
            yield Receive(_THANKS, worker)

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
