"""SGP that waits for nobody's share, but for room at the receiver: a hypothesis about Table 3.

    worker i, step k
    1  as SGP up to line 3
    3  send the share to the peer of step k; if as many shares as it takes lie there unread, wait
    4  absorb whatever has come, wait for nothing

So what a slow worker has not read bounds how far those who send to it get ahead: ``cluster.network.inbox``
shares per pair, and ``window`` more under way. Where it is slow enough for its inbox to fill up, those who
wait for it read nothing either, and the others come to wait for them. The paper says none of this.

Invariant: that of SGP, the weights of all workers and of all messages under way sum to n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.algorithms.sgp import SGP
from core.effects import Compute, Send
from core.gossip import Arrivals
from core.node import Finished, Message, Node, Program

__all__ = ["BlockingSGP"]


@dataclass(frozen=True)
class BlockingSGP(SGP):
    """SGP whose sends block where the receiver has no room, and whose receives never do."""

    name: ClassVar[str] = "blocking_sgp"
    title: ClassVar[str] = "SGP, waiting for room only"

    overlap: int | str = "none"

    def worker(self, node: Node) -> Program:
        peers, arrivals, me = self._schedule(node.workers), Arrivals(), node.id
        try:
            while True:
                gradient = yield Compute()
                step = node.step - 1
                node.optimizer.apply(node.tensors, node.params, gradient, node.lr() / node.weight)
                to = [j for j in peers.out(me, step) if j in node.live]
                share = self._share(node.weight, len(to)) if to else 0.0
                if share:
                    z = node.tensors.snapshot(node.params)
                    node.weight -= share * len(to)
                    yield Send(*((peer, Message("sgp.share", z, step, number=share)) for peer in to))
                yield from self._take_in(node, arrivals, -1)
        except Finished:
            return
