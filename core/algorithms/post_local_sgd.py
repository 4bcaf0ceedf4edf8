"""Post-local SGD: AR-SGD first, local SGD afterwards (Lin, Stich, Patel and Jaggi 2020, Algorithm 2).

    worker i, step k                                 K = the steps in ``switch`` epochs
    1  g_i <- gradient at x_i
    2  while k < K:  g_i <- mean of g_1 .. g_n       (all-reduce)
    3  x_i <- x_i - eta g_i                          (momentum lives here, and stays)
    4  from K on, after every H steps:  x_i <- mean of x_1 .. x_n      (all-reduce)

An epoch is one of the samples of all n workers together, so K = switch x samples per epoch /
(n x batch), rounded up. Every worker counts its own steps; all count alike, so all change over at
the same step, also when some have left.

Invariants: until K replicas are identical, afterwards after each average; switch = 0 is local SGD,
a switch that is never reached is AR-SGD, both event for event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf
from typing import ClassVar

from core.algorithms.local_sgd import average, check_h
from core.effects import AllReduce, Compute
from core.errors import is_number, require
from core.node import Finished, Node, Program

__all__ = ["PostLocalSGD"]

_COMPUTE = Compute()


@dataclass(frozen=True)
class PostLocalSGD:
    """AR-SGD for ``switch`` epochs, then ``h`` local steps between averages."""

    name: ClassVar[str] = "post_local_sgd"
    title: ClassVar[str] = "Post-local SGD (all-reduce first, then local)"
    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = True
    joins: ClassVar[bool] = True

    h: int = 8
    switch: float = 1.0

    def __post_init__(self) -> None:
        check_h(self.h)
        number = is_number(self.switch)
        valid = "a number of epochs of at least 0, or unlimited"
        require("switch", self.switch, number and self.switch >= 0, valid)

    def worker(self, node: Node) -> Program:
        steps = self.switch * node.schedule.samples_per_epoch / (node.workers * node.batch)
        synchronous = ceil(steps) if steps < inf else inf
        try:
            while True:
                gradient = yield _COMPUTE
                if node.step <= synchronous:
                    yield AllReduce(gradient)
                node.optimizer.apply(node.tensors, node.params, gradient, node.lr())
                if node.step > synchronous and (node.step - synchronous) % self.h == 0:
                    yield from average(node)
        except Finished:
            return

    def server(self, node: Node) -> Program:
        raise NotImplementedError("post-local SGD has no servers")

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
