"""SGP: stochastic gradient push, with or without overlap (Assran et al. 2019, Algorithms 1 and 2).

    worker i, step k, w_i = 1 at first                            z_i = x_i / w_i
    1  g_i <- gradient at z_i
    2  x_i <- x_i - eta g_i                                       (momentum lives here)
    3  p <- 1 / (1 + number of peers);  send (p x_i, p w_i) to the peers of step k;
       x_i <- p x_i;  w_i <- p w_i
    4  for every (x', w') that comes:  x_i <- x_i + x';  w_i <- w_i + w'

``node.params`` is z and ``node.weight`` is w; x = w z stays implicit. Then line 2 is z <- z - (eta / w) g,
line 3 leaves z alone, and line 4 is z <- (w z + w' z') / (w + w'). A share (p x, p w) travels as
(z, p w): the weight is always sent.

graph    who sends to whom at which step, a peer schedule of core/topology.py; ``degree`` and
         ``graph_seed`` are those of ``random_regular``
overlap  0: line 4 waits for the messages of this step (Algorithm 1). s: it takes whatever has come,
         and waits for what was sent at step k - s: a message of step k is in by the start of step
         k + s + 1 (the papers' runs: 1). none: it never waits, and line 3 skips a peer to which
         the last share is still under way
least    no worker gives away so much that a weight of less than ``least`` (or p, if that is less) is left
         to it: its own steps are eta / w. A worker whose senders have ended, died or are slow would
         otherwise run dry and jump ever farther (docs/algorithms.md: measured). It does not bind at
         overlap 0, nor at overlap 1 with one peer, while everybody is there and is sent to as often as
         he sends. 0: as in the papers

A peer that has left gets nothing: its share stays. Before it returns, a worker takes in what was sent to
it at its own steps (or, under ``none``, what has come). What reaches a worker after that, or goes to one
of whom the sender does not know yet that it has left, is lost; so is what the dead held. The record's
``weight`` column tells by how much the rest falls short of n.

Invariants: the weights of all workers and of all messages under way sum to n; with g = 0 so does the
sum of all x conserve; with overlap 0 a run does not depend on the order of deliveries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from core.effects import Compute, Effect, Poll, Receive, Send, TrySend
from core.errors import require
from core.gossip import check_peers, merge
from core.node import LEFT, Finished, Left, Message, Node, Program
from core.topology import GRAPHS, PeerSchedule, Spec, check_connected, graph, schedule

__all__ = ["SGP"]

_COMPUTE, _SHARE = Compute(), "sgp.share"
_POLL, _RECEIVE = Poll((_SHARE, LEFT)), Receive((_SHARE, LEFT))


@dataclass
class _Arrivals:
    """What a worker has yet to get: ``due`` in order of steps as (step, source); ``last`` step by source."""

    due: deque[tuple[int, int]] = field(default_factory=deque)
    last: dict[int, float] = field(default_factory=dict)

    def missing(self, until: int) -> bool:
        """Whether anything that was sent to this worker at step ``until`` or before has not come."""
        due, last = self.due, self.last
        while due and last.get(due[0][1], -1) >= due[0][0]:
            due.popleft()
        return bool(due) and due[0][0] <= until


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
        whole = isinstance(self.overlap, int) and not isinstance(self.overlap, bool) and self.overlap >= 0
        require(
            "overlap", self.overlap, whole or self.overlap == "none", "a whole number of at least 0, or none"
        )
        number = isinstance(self.least, int | float) and not isinstance(self.least, bool)
        require("least", self.least, number and 0 <= self.least <= 0.5, "a number in [0, 0.5]")

    def check(self, workers: int) -> None:
        """Raise ``OptionError`` where the schedule does not connect so many workers."""
        check_peers(workers)
        self._schedule(workers)
        if not isinstance(self.graph, str) or self.graph in GRAPHS:
            check_connected(
                graph(self.graph, workers, degree=self.degree, seed=self.graph_seed), value=self.graph
            )

    def worker(self, node: Node) -> Program:
        peers, arrivals, me = self._schedule(node.workers), _Arrivals(), node.id
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
        return schedule(self.graph, workers, degree=self.degree, seed=self.graph_seed)

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

    def _take_in(self, node: Node, arrivals: _Arrivals, until: int) -> Generator[Effect, Any, None]:
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
