"""D-PSGD: decentralized parallel SGD on a fixed graph (Lian et al. 2017, Algorithm 1).

    worker i, step k
    -  send x_k,i to all neighbours                         (so that line 4 hides behind line 3)
    3  g_i <- gradient at x_k,i
    4  x_k+1/2,i <- sum over j of W_ij x_k,j                (waits for the neighbours' x_k only)
    5  x_k+1,i <- x_k+1/2,i - eta g_i                       (momentum lives here)

W is symmetric and doubly stochastic: Metropolis weights on ``graph`` (core/topology.py), or ``matrix``,
whose support then is the graph. ``degree`` and ``graph_seed`` are those of ``random_regular``.

Neighbours are never more than one step apart: whoever begins step k + 1 has x_k of all of them. Nobody
waits for anybody else. A neighbour that has left gives its weight to the worker itself, on both sides of
every edge that remains, so that W stays symmetric among those who go on. A worker sends its last
parameters too, before it knows that its budget is met: a neighbour that goes on averages with them once
more.

Invariants: while all are there, the mean of all x_i moves by gradients only, by eta/n each; with g = 0
the distance to consensus shrinks by sqrt(rho) = zeta(W) or more at every step; a run does not depend
on the order of deliveries.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from core import mixing
from core.effects import Compute, Effect, Receive, Send
from core.errors import require
from core.gossip import check_graph_options, check_peers, hashable
from core.node import LEFT, Finished, Left, Message, Node, Program
from core.topology import Graph, Spec, check_connected, graph

__all__ = ["DPSGD"]

_COMPUTE, _PARAMETERS = Compute(), "dpsgd.parameters"


@dataclass(frozen=True)
class DPSGD:
    """D-PSGD on a named graph or edge list with Metropolis weights, or with a matrix of one's own."""

    name: ClassVar[str] = "dpsgd"
    title: ClassVar[str] = "D-PSGD (decentralized, synchronous with neighbours)"
    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = False

    graph: Spec = "ring"
    matrix: Any = None
    degree: int = 3
    graph_seed: int = 0

    def __post_init__(self) -> None:
        check_graph_options(self.degree, self.graph_seed)
        alone = self.matrix is None or self.graph == DPSGD.graph
        require("graph", self.graph, alone, "no graph where a matrix is given: its weights say who mixes")

    def check(self, workers: int) -> None:
        """Raise ``OptionError`` where the graph or the matrix does not suit so many workers."""
        check_peers(workers)
        if self.matrix is not None:
            mixing.matrix(self.matrix, workers)
        else:
            check_connected(
                graph(self.graph, workers, degree=self.degree, seed=self.graph_seed), value=self.graph
            )

    def worker(self, node: Node) -> Program:
        tensors, x, me, n = node.tensors, node.params, node.id, node.workers
        weights = self.row(me, n)
        others = sorted(weights.keys() - {me})
        neighbours = [j for j in others if j > me] + [j for j in others if j < me]
        try:
            while True:
                step = node.step
                there = [j for j in neighbours if j in node.live]
                if there:
                    parameters = tensors.snapshot(x)
                    yield Send(*((j, Message(_PARAMETERS, parameters, step)) for j in there))
                gradient = yield _COMPUTE
                theirs = yield from _from_all(node, step, neighbours)
                if theirs:
                    own = weights[me] + sum(weights[j] for j in others if j not in theirs)
                    tensors.scale(x, own)
                    for j, message in theirs.items():
                        tensors.accumulate(x, message.tensor, weights[j])
                    node.blends += 1
                neighbours = [j for j in neighbours if j in theirs]
                node.optimizer.apply(tensors, x, gradient, node.lr())
        except Finished:
            return

    def server(self, node: Node) -> Program:
        raise NotImplementedError("D-PSGD has no servers")

    def companions(self, node: Node) -> Iterable[Program]:
        return ()

    def weights(self, workers: int) -> mixing.Matrix:
        """W, (workers, workers): row i holds worker i's weights. One that is given is checked once."""
        if self.matrix is not None:
            return _given(tuple(tuple(row) for row in self.matrix), workers)
        return mixing.metropolis(_graph(hashable(self.graph), workers, self.degree, self.graph_seed))

    def row(self, worker: int, workers: int) -> dict[int, float]:
        """The weights of one worker, its own and those above or below 0 of others, by rank."""
        if self.matrix is not None:
            own = self.weights(workers)[worker].tolist()
            return {rank: weight for rank, weight in enumerate(own) if weight or rank == worker}
        of_edges = _graph(hashable(self.graph), workers, self.degree, self.graph_seed)
        return mixing.metropolis_row(of_edges, worker)


@lru_cache(maxsize=4)
def _graph(spec: Any, workers: int, degree: int, seed: int) -> Graph:
    return graph(spec, workers, degree=degree, seed=seed)


@lru_cache(maxsize=4)
def _given(rows: tuple[tuple[float, ...], ...], workers: int) -> mixing.Matrix:
    return mixing.matrix(rows, workers)


def _from_all(node: Node, step: int, sources: list[int]) -> Generator[Effect, Any, dict[int, Message]]:
    """The message of ``step`` from each of ``sources``, by rank; without those that left before sending it.

    They are read in the order in which they come; what comes of later steps stays unread.
    """
    found: dict[int, Message] = {}
    missing = set(sources)
    for source in sorted(missing - node.live):
        missing.discard(source)
        message = yield Receive(_PARAMETERS, source, step)
        if type(message) is not Left:
            found[source] = message
    want = Receive((_PARAMETERS, LEFT), step=step)
    while missing:
        message = yield want
        if type(message) is Left:
            missing.discard(message.rank)
        else:
            missing.discard(message.source)
            found[message.source] = message
    return dict(sorted(found.items()))
