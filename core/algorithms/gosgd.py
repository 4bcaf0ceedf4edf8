"""GoSGD: gossip SGD with random pushes of weighted shares (Blot et al. 2016, Algorithms 3 and 4).

    worker i, w_i = 1/n at first
    1  g_i <- gradient at x_i
    2  x_i <- x_i - eta g_i                                      (momentum lives here)
    3  with probability p: w_i <- w_i / 2; send (x_i, w_i) to a random other worker
    4  for every (x', w') that has come:  x_i <- (w_i x_i + w' x') / (w_i + w');  w_i <- w_i + w'

Nobody waits. What a worker does when its last share to that peer is still under way: ``on_busy:
skip`` (default) keeps weight and parameters, ``wait`` holds the worker. A worker that has met its budget
takes in what has come by then; shares that come later, or go to one of whom the sender does not know
yet that it has left, are lost, and the record's ``weight`` tells by how much the rest falls short of 1.

Invariants: the weights of all workers and of all messages under way sum to 1; each exchange preserves
the weighted sum of the parameters.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from core.effects import Compute, Effect, Poll, Send, TrySend
from core.errors import is_number, require
from core.gossip import check_peers, merge
from core.joining import JOINED_LATE
from core.node import LEFT, Finished, Left, Message, Node, Program

__all__ = ["GoSGD", "another"]

_COMPUTE, _SHARE = Compute(), "gosgd.share"
_POLL = Poll((_SHARE, LEFT))


@dataclass(frozen=True)
class GoSGD:
    """GoSGD: pushes with probability ``p`` after every step."""

    name: ClassVar[str] = "gosgd"
    title: ClassVar[str] = "GoSGD (decentralized, asynchronous random pushes)"
    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = False
    joins: ClassVar[bool] = True

    p: float = 0.1
    on_busy: str = "skip"

    def __post_init__(self) -> None:
        number = is_number(self.p)
        require("p", self.p, number and 0 <= self.p <= 1, "a number in [0, 1]")
        require("on_busy", self.on_busy, self.on_busy in ("skip", "wait"), "skip or wait")

    def check(self, workers: int) -> None:
        """Raise ``OptionError`` for a single worker."""
        check_peers(workers)

    def worker(self, node: Node) -> Program:
        if JOINED_LATE not in node.memory:
            node.weight = 1 / len(node.live)
        return self._steps(node)

    def server(self, node: Node) -> Program:
        raise NotImplementedError("GoSGD has no servers")

    def share(self, node: Node) -> float:
        """Give half of the weight to a joiner, which gets the parameters along with it."""
        node.weight /= 2
        return node.weight

    def companions(self, node: Node) -> Iterable[Program]:
        return ()

    def _steps(self, node: Node) -> Program:
        rng = node.rng("gosgd.push")
        try:
            while True:
                gradient = yield _COMPUTE
                node.optimizer.apply(node.tensors, node.params, gradient, node.lr())
                if rng.random() < self.p:
                    peer = another(node, rng)
                    if peer is not None:
                        yield from self._push(node, peer)
                yield from self._take_in(node)
        except Finished:
            yield from self._take_in(node)

    def _push(self, node: Node, peer: int) -> Generator[Effect, Any, None]:
        """Send half of the weight; all of it stays if the transport does not take it."""
        held = node.weight
        node.weight = held / 2
        pair = (peer, Message(_SHARE, node.tensors.snapshot(node.params), node.step - 1, number=held / 2))
        if self.on_busy == "wait":
            yield Send(pair)
        elif not (yield TrySend(pair)):
            node.weight += held / 2  # a joiner may have been given of the rest meanwhile

    def _take_in(self, node: Node) -> Generator[Effect, Any, None]:
        """Merge all shares that have come; reading departures keeps ``node.live`` up to date."""
        while (message := (yield _POLL)) is not None:
            if type(message) is not Left:
                merge(node, message)


def another(node: Node, rng: np.random.Generator) -> int | None:
    """One of the others that are there, all alike; None where there is nobody.

    Where most are there ranks are drawn until one is: lists of many workers, one for each, take long.
    """
    me, live = node.id, node.live
    if 2 * len(live) <= node.workers:
        others = sorted(live - {me})
        return others[int(rng.integers(len(others)))] if others else None
    while True:
        drawn = int(rng.integers(node.workers - 1))
        peer = drawn + (drawn >= me)
        if peer in live:
            return peer
