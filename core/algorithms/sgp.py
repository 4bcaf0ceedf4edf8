"""SGP: stochastic gradient push, with or without overlap (Assran et al. 2019, Algorithms 1 and 2).

    worker i, step k, w_i = 1 at first                            z_i = x_i / w_i
    1  g_i <- gradient at z_i
    2  x_i <- x_i - eta g_i                                       (momentum lives here)
    3  p <- 1 / (1 + number of peers);  send (p x_i, p w_i) to the peers of step k;
       x_i <- p x_i;  w_i <- p w_i
    4  for every (x', w') that comes:  x_i <- x_i + x';  w_i <- w_i + w'

``node.params`` is z, ``node.weight`` is w. Then line 2 is z <- z - (eta / w) g, line 3 leaves z alone, and
line 4 is z <- (w z + w' z') / (w + w'). A share (p x, p w) travels as (z, p w): the weight is always sent.

graph    a peer schedule of core/topology.py; ``degree`` and ``graph_seed`` as there
overlap  0: line 4 waits for the messages of this step (Algorithm 1). s: it takes what has come and
         waits for what was sent at step k - s: a message of step k is in by the start of step
         k + s + 1. none: it never waits, and line 3 skips peers with the last share still under way
least    the weight (or p, if that is less) below which no worker gives anything away: its own steps are
         eta / w, and it would run dry if its senders have ended, died or are slow. Never binds at
         overlap 0 (or 1, with one peer) while all are there and are sent to as often as they
         send. 0: as in the papers

A peer that has left gets nothing: its share stays. Before it returns, a worker takes in what was sent to
it at its own steps (under ``none``: what has come). What comes later is lost, and so is what the dead
held: the record's ``weight`` column tells what is left of n.

Invariants: the weights of all workers and of all messages under way sum to n; with g = 0 the sum
of all x stays what it was; with overlap 0 a run does not depend on the order of deliveries.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from core.effects import Compute, Effect, Poll, Receive, Send, TrySend
from core.errors import is_number, is_whole, require
from core.gossip import Arrivals, check_graph_options, check_peers, hashable, merge
from core.node import LEFT, Finished, Left, Message, Node, Program
from core.topology import GRAPHS, PeerSchedule, Spec, check_connected, graph, schedule

__all__ = ["SGP"]

_COMPUTE, _SHARE = Compute(), "sgp.share"
_POLL, _RECEIVE = Poll((_SHARE, LEFT)), Receive((_SHARE, LEFT))


@dataclass(frozen=True)
class SGP:
    """SGP on a directed schedule of peers, with ``overlap`` steps of delay allowed."""

    name: ClassVar[str] = "sgp"
    title: ClassVar[str] = "SGP (decentralized, push-sum)"
    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = False

    graph: Spec = "one_peer_exponential"
    overlap: int | str = 1
    degree: int = 3
    graph_seed: int = 0
    least: float = 0.25

    def __post_init__(self) -> None:
        whole = is_whole(self.overlap) and self.overlap >= 0
        valid = "a whole number of at least 0, or none"
        require("overlap", self.overlap, whole or self.overlap == "none", valid)
        number = is_number(self.least)
        require("least", self.least, number and 0 <= self.least <= 0.5, "a number in [0, 0.5]")
        check_graph_options(self.degree, self.graph_seed)

    def check(self, workers: int) -> None:
        """Raise ``OptionError`` where the schedule does not connect so many workers."""
        check_peers(workers)
        chosen = {"degree": self.degree, "seed": self.graph_seed}
        schedule(self.graph, workers, **chosen)
        if not isinstance(self.graph, str) or self.graph in GRAPHS:
            check_connected(graph(self.graph, workers, **chosen), value=self.graph)

    def worker(self, node: Node) -> Program:
        peers, arrivals, me = self._schedule(node.workers), Arrivals(), node.id
        try:
            while True:
                gradient = yield _COMPUTE
                step = node.step - 1
                node.optimizer.apply(node.tensors, node.params, gradient, node.lr() / node.weight)
                yield from self._push(node, [j for j in peers.out(me, step) if j in node.live], step)
                sources = peers.into(me, step)
                if self.overlap == 0:
                    for source in sources:
                        share = yield Receive(_SHARE, source, step)
                        if type(share) is not Left:
                            merge(node, share)
                    continue
                if isinstance(self.overlap, int):
                    arrivals.due.extend((step, source) for source in sources)
                    step -= self.overlap
                yield from self._take_in(node, arrivals, step)
        except Finished:
            yield from self._take_in(node, arrivals, node.step)

    def server(self, node: Node) -> Program:
        raise NotImplementedError("SGP has no servers")

    def companions(self, node: Node) -> Iterable[Program]:
        return ()

    def _schedule(self, workers: int) -> PeerSchedule:
        return _schedule(hashable(self.graph), workers, self.degree, self.graph_seed)

    def _push(self, node: Node, peers: list[int], step: int) -> Generator[Effect, Any, None]:
        """Line 3. A share of nothing is announced all the same: its receiver may be waiting."""
        if not peers:
            return
        share = self._share(node.weight, len(peers))
        z = node.tensors.snapshot(node.params) if share else None
        messages = [(peer, Message(_SHARE, z, step, number=share)) for peer in peers]
        if self.overlap != "none":
            node.weight -= share * len(peers)
            yield Send(*messages)
        elif share:
            for message in messages:
                held = node.weight
                node.weight = held - share
                if not (yield TrySend(message)):
                    node.weight = held

    def _share(self, weight: float, peers: int) -> float:
        """What each of so many peers gets of ``weight``."""
        p = 1 / (1 + peers)
        return min(weight * p, max(weight - min(self.least, p), 0.0) / peers)

    def _take_in(self, node: Node, arrivals: Arrivals, until: int) -> Generator[Effect, Any, None]:
        """Line 4: merge whatever has come, and wait for what was sent at step ``until`` or before."""
        while True:
            message = yield _RECEIVE if arrivals.missing(until) else _POLL
            if message is None:
                return
            if type(message) is Left:
                arrivals.last[message.rank] = float("inf")
            else:
                arrivals.last[message.source] = message.step
                merge(node, message)


@lru_cache(maxsize=4)
def _schedule(spec: Any, workers: int, degree: int, seed: int) -> PeerSchedule:
    return schedule(spec, workers, degree=degree, seed=seed)
