"""SSP: stale-synchronous parallel SGD on parameter servers (Ho et al. 2013, section 2).

    worker i                          server
    1  g_i <- gradient at x_i         1  receive g_i, the gradient of step k;  c_i <- k + 1
    2  send g_i to the server         2  x~ <- x~ - (eta / n) g_i     (momentum lives here)
    3  wait for x~;  x_i <- x~        3  to every worker j that waits and has c_j - min c <= s:
                                           send x~

c_i counts the steps of worker i that the server knows of; the minimum is over the workers that have
not left, of whom those that have pushed nothing yet count as 0; who joins is counted as the slowest is, and
goes on from there. When a worker leaves, the minimum is
taken anew and whoever it held up goes on. A reply carries the model as it is when the reply is sent,
so a worker always sees its own gradients. Every shard does this alone; the worker goes on when it
has the replies of all.

Invariants: every gradient is applied exactly once; at no time is a live worker more than s + 1
completed steps ahead of another; s = 0 is lock-step (nobody begins step k + 1 before everybody has
pushed step k); s = inf is ASP, event for event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from core.algorithms.asp import ASP
from core.effects import Now, Send
from core.errors import is_whole, require
from core.gate import Gate
from core.joining import JOIN, answer, expecting
from core.node import GRADIENT, LEFT, MODEL, Left, Message, Node, Program

__all__ = ["SSP", "Gate", "serve"]

_NOW = Now()


def serve(node: Node, gate: Gate) -> Program:
    """The server: apply each gradient at once, reply when ``gate`` lets the worker go on."""
    tensors, ledger, optimizer, x = node.tensors, node.ledger, node.optimizer, node.params
    receive = expecting(node, GRADIENT) if gate.s == inf else expecting(node, GRADIENT, LEFT)
    for rank in set(range(node.workers)) - node.live if node.joins else ():
        gate.leave(rank)
    while True:
        message = yield receive
        if type(message) is Left:
            free = gate.leave(message.rank)
        elif message.tag == JOIN:
            free = gate.join(message.source)
            yield answer(node, message, gate.clock[message.source])
            if gate.timed:
                gate.answered([message.source], (yield _NOW))
        else:
            now = (yield _NOW) if gate.timed else 0.0
            ledger.hold(message.source, message.count, message.versions)
            optimizer.apply(tensors, x, message.tensor, node.lr() / node.workers)
            ledger.settle(node.version)
            node.version += 1
            free = gate.push(message.source, message.step + 1, now)
        if free:
            model, version, clock = tensors.snapshot(x), node.version, gate.clock
            yield Send(*((rank, Message(MODEL, model, clock[rank] - 1, versions=version)) for rank in free))
            if gate.timed:
                gate.answered(free, (yield _NOW))


@dataclass(frozen=True)
class SSP:
    """Stale-synchronous parallel SGD: nobody begins a step when more than ``s`` steps ahead."""

    name: ClassVar[str] = "ssp"
    title: ClassVar[str] = "SSP (stale-synchronous parallel)"
    centralized: ClassVar[bool] = True
    collective: ClassVar[bool] = False
    joins: ClassVar[bool] = True

    s: float = 3

    def __post_init__(self) -> None:
        require(
            "s",
            self.s,
            self.s == inf or (is_whole(self.s) and self.s >= 0),
            "a whole number of at least 0, or unlimited",
        )

    def worker(self, node: Node) -> Program:
        return ASP().worker(node)

    def server(self, node: Node) -> Program:
        return serve(node, Gate(node.workers, self.s))

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
