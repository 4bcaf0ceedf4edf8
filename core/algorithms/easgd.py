"""EASGD: elastic averaging SGD (Zhang, Choromanska and LeCun 2015, Algorithm 1; with momentum: EAMSGD).

    worker i                                      server
    1  g_i <- gradient at x_i                     1  receive x_i from any worker i
    2  x_i <- x_i - eta g_i                       2  y <- x~
    3  after every tau steps:                     3  x~ <- x~ + alpha (x_i - x~)
    4     send x_i, wait for y                    4  send y to worker i
    5     x_i <- x_i - alpha (x_i - y)

alpha = beta / n. Both sides take the same elastic step, since y is the centre as it was before the
exchange and x_i does not change while the worker waits. The paper exchanges before the local step,
with the gradient taken at the x_i from before; here the exchange comes after the tau-th step, so that
parameters are sent as soon as they are complete. Every shard exchanges its slice.

Gradients never leave their worker (``sends_gradients``), so the servers' ledgers have none to account
for; a centre's version counts its exchanges. What a worker does after its last exchange is not sent.
Momentum lives on the worker, and the model that is evaluated is the centre x~.

Invariant: an exchange preserves x_i + x~ (to rounding), hence the sum over centre and replicas moves by
gradients only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from core.effects import Compute, Receive, Send
from core.errors import is_number, is_whole, require
from core.joining import JOIN, answer, expecting
from core.node import Finished, Message, Node, Program

__all__ = ["EASGD"]

_REPLICA, _CENTRE = "easgd.replica", "easgd.centre"
_COMPUTE, _RECEIVE_CENTRE = Compute(), Receive(_CENTRE)


@dataclass(frozen=True)
class EASGD:
    """Elastic averaging: every ``tau`` steps worker and centre approach each other by ``beta`` / n."""

    name: ClassVar[str] = "easgd"
    title: ClassVar[str] = "EASGD (elastic averaging)"
    centralized: ClassVar[bool] = True
    collective: ClassVar[bool] = False
    joins: ClassVar[bool] = True
    sends_gradients: ClassVar[bool] = False

    tau: int = 2
    beta: float = 0.9

    def __post_init__(self) -> None:
        whole = is_whole(self.tau)
        require("tau", self.tau, whole and self.tau >= 1, "a whole number of at least 1")
        number = is_number(self.beta)
        require("beta", self.beta, number and 0 < self.beta < inf, "a finite number above 0")

    def check(self, workers: int) -> None:
        """Beyond alpha = 1 the two sides would step past each other."""
        valid = f"at most {workers}, the number of workers: alpha = beta / n must not exceed 1"
        require("beta", self.beta, self.beta <= workers, valid)

    def worker(self, node: Node) -> Program:
        tensors, alpha = node.tensors, self.beta / node.workers
        first = node.id % len(node.shards)
        shards = (*node.shards[first:], *node.shards[:first])
        kept_by = {shard.server: shard for shard in shards}
        try:
            while True:
                gradient = yield _COMPUTE
                node.optimizer.apply(tensors, node.params, gradient, node.lr())
                if node.step % self.tau == 0:
                    copy = tensors.snapshot(node.params)
                    yield Send(*((s.server, Message(_REPLICA, s.of(copy), node.step - 1)) for s in shards))
                    for _ in shards:
                        centre = yield _RECEIVE_CENTRE
                        tensors.mix(kept_by[centre.source].of(node.params), centre.tensor, alpha)
                        node.version = centre.versions
                    node.blends += 1
        except Finished:
            return

    def server(self, node: Node) -> Program:
        tensors, alpha = node.tensors, self.beta / node.workers
        receive = expecting(node, _REPLICA)
        while True:
            replica = yield receive
            if replica.tag == JOIN:
                yield answer(node, replica, node.version * self.tau // node.workers)
                continue
            before = tensors.snapshot(node.params)
            tensors.mix(node.params, replica.tensor, alpha)
            node.version += 1
            reply = Message(_CENTRE, before, replica.step, versions=node.version)
            yield Send((replica.source, reply))

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
