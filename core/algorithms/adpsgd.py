"""AD-PSGD: asynchronous decentralized parallel SGD (Lian et al. 2018, Algorithm 1, sections 3 and 4).

    active worker i                                  passive worker j
    1  pick a random passive neighbour j             1  g_j <- gradient at x_j
    2  send x_i to j                                 2  x_j <- x_j - eta g_j    (momentum lives here)
    3  g_i <- gradient at x_i                           meanwhile, whenever some x_i comes:
    4  receive x_j                                   3  send x_j to i and set x_j <- (x_i + x_j) / 2
    5  x_i <- (x_i + x_j) / 2                           (at one go: no gradient comes between)
    6  x_i <- x_i - eta g_i    (momentum lives here)

The graph is bipartite: the side of worker 0 is active, the other one passive. Only active workers
ask and only passive ones answer, so no cycle of workers can wait for each other. Nobody changes x_i
between lines 2 and 5, so both sides of an exchange average the same two vectors. Gradients are
taken at the parameters from before the averaging and applied after it.

A passive worker that has met its budget goes on answering until all its active neighbours have
left: every exchange that was begun is completed, the last one of an active worker included (it was
begun before the worker knew that its budget was met). The neighbour of an exchange may still die: then
there is none. An active worker without live neighbours goes on alone.

Invariants: a completed exchange preserves x_i + x_j; every gradient enters its own worker's parameters
once; an active worker waits for one reply at most, a passive one for nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from core.effects import Compute, Effect, Receive, Send
from core.gossip import check_graph_options, check_peers, hashable
from core.node import LEFT, Finished, Left, Message, Node, Program
from core.topology import Graph, Spec, check_bipartite, check_connected, graph

__all__ = ["ADPSGD"]

_REQUEST, _REPLY = "adpsgd.request", "adpsgd.reply"
_COMPUTE, _ANY_REQUEST, _DEPARTURE = Compute(), Receive(_REQUEST), Receive(LEFT)


@dataclass(frozen=True)
class ADPSGD:
    """AD-PSGD on a bipartite graph, by name or as a list of edges."""

    name: ClassVar[str] = "adpsgd"
    title: ClassVar[str] = "AD-PSGD (decentralized, asynchronous pairs)"
    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = False
    joins: ClassVar[bool] = True

    graph: Spec = "bipartite"
    degree: int = 3
    graph_seed: int = 0

    def __post_init__(self) -> None:
        check_graph_options(self.degree, self.graph_seed)

    def check(self, workers: int) -> None:
        """Raise ``OptionError`` unless the graph is connected and bipartite with so many workers."""
        check_peers(workers)
        found = graph(self.graph, workers, degree=self.degree, seed=self.graph_seed)
        check_connected(found, value=self.graph)
        if found.sides() is None:
            check_bipartite(found, value=self.graph)

    def worker(self, node: Node) -> Program:
        neighbours = self._graph(node.workers).neighbours(node.id)
        return self._active(node, neighbours) if self._asks(node) else self._passive(node, neighbours)

    def server(self, node: Node) -> Program:
        raise NotImplementedError("AD-PSGD has no servers")

    def companions(self, node: Node) -> Iterable[Program]:
        return () if self._asks(node) else (self._answers(node),)

    def _graph(self, workers: int) -> Graph:
        return _sides(hashable(self.graph), workers, self.degree, self.graph_seed)[0]

    def _asks(self, node: Node) -> bool:
        """Whether the worker is on the active side."""
        return node.id in _sides(hashable(self.graph), node.workers, self.degree, self.graph_seed)[1]

    def _active(self, node: Node, neighbours: tuple[int, ...]) -> Program:
        rng = node.rng("adpsgd.neighbour")
        partner = None
        try:
            while True:
                there = [j for j in neighbours if j in node.live]
                partner = there[int(rng.integers(len(there)))] if there else None
                if partner is not None:
                    yield Send((partner, Message(_REQUEST, node.tensors.snapshot(node.params), node.step)))
                gradient = yield _COMPUTE
                if partner is not None:
                    yield from self._average(node, partner)
                node.optimizer.apply(node.tensors, node.params, gradient, node.lr())
        except Finished:
            if partner is not None:
                yield from self._average(node, partner)

    def _average(self, node: Node, partner: int) -> Generator[Effect, Any, None]:
        """Complete the exchange with ``partner``, unless it has died."""
        reply = yield Receive(_REPLY, source=partner)
        if type(reply) is not Left:
            node.tensors.mix(node.params, reply.tensor, 0.5)
            node.blends += 1

    def _passive(self, node: Node, neighbours: tuple[int, ...]) -> Program:
        try:
            while True:
                gradient = yield _COMPUTE
                node.optimizer.apply(node.tensors, node.params, gradient, node.lr())
        except Finished:
            while not node.live.isdisjoint(neighbours):
                yield _DEPARTURE

    def _answers(self, node: Node) -> Program:
        while True:
            request = yield _ANY_REQUEST
            before = node.tensors.snapshot(node.params)
            node.tensors.mix(node.params, request.tensor, 0.5)
            node.blends += 1
            yield Send((request.source, Message(_REPLY, before, request.step)))


@lru_cache(maxsize=4)
def _sides(spec: Any, workers: int, degree: int, seed: int) -> tuple[Graph, frozenset[int]]:
    """The graph and its active side: workers at an even distance from worker 0."""
    found = graph(spec, workers, degree=degree, seed=seed)
    return found, frozenset(i for i, far in found.distances(0).items() if far % 2 == 0)
