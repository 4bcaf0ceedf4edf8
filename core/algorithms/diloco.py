"""DiLoCo: local steps inside, Nesterov momentum outside (Douillard et al. 2023, Algorithm 1).

    worker i                                    y = the outer parameters, alike on all workers
    1  g_i <- gradient at x_i
    2  x_i <- x_i - eta g_i                     (inner optimizer; its momentum stays on the worker)
    3  after every H steps:
    4     d <- mean of (y - x_i) over the live workers        (all-reduce)
    5     v <- mu v + d
    6     y <- y - lambda (d + mu v);  x_i <- y

lambda is ``outer_lr``, mu ``outer_momentum``. y and v are kept by every worker for itself and stay
identical because the all-reduce gives all the same d. The inner optimizer is the scenario's momentum
SGD (the paper's is AdamW). A worker that leaves in between takes its steps since the last exchange
along.

Invariants: replicas are identical after each exchange; lambda = 1, mu = 0 is local SGD (to rounding).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from core.algorithms.local_sgd import check_h
from core.effects import AllReduce, Compute
from core.errors import is_number, require
from core.joining import SHARED
from core.node import Finished, Node, Program

__all__ = ["DiLoCo"]

_COMPUTE = Compute()


@dataclass(frozen=True)
class DiLoCo:
    """``h`` inner steps, then one outer Nesterov step on the mean difference."""

    name: ClassVar[str] = "diloco"
    title: ClassVar[str] = "DiLoCo (local steps, outer Nesterov momentum)"
    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = True
    joins: ClassVar[bool] = True

    h: int = 8
    outer_lr: float = 0.7
    outer_momentum: float = 0.9

    def __post_init__(self) -> None:
        check_h(self.h)
        number = is_number(self.outer_lr)
        require("outer_lr", self.outer_lr, number and 0 < self.outer_lr < inf, "a finite number above 0")
        number = is_number(self.outer_momentum)
        momentum = number and 0 <= self.outer_momentum < 1
        require("outer_momentum", self.outer_momentum, momentum, "a number in [0, 1)")

    def worker(self, node: Node) -> Program:
        tensors, lr, momentum = node.tensors, self.outer_lr, self.outer_momentum
        if not node.memory.get(SHARED):
            outer = tensors.snapshot(node.params)
            node.memory[SHARED] = (outer, tensors.zeros_like(outer))
        outer, velocity = node.memory[SHARED]
        try:
            while True:
                gradient = yield _COMPUTE
                node.optimizer.apply(tensors, node.params, gradient, node.lr())
                if node.step % self.h == 0:
                    difference = tensors.snapshot(outer)
                    tensors.accumulate(difference, node.params, -1.0)
                    yield AllReduce(difference)
                    tensors.apply(outer, difference, lr)
                    if momentum:
                        tensors.apply(outer, difference, lr * momentum, momentum, velocity)
                    tensors.assign(node.params, outer)
                    node.blends += 1
        except Finished:
            return

    def server(self, node: Node) -> Program:
        raise NotImplementedError("DiLoCo has no servers")

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
