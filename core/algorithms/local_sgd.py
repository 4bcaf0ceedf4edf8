"""Local SGD: H steps alone, then the mean of all replicas (Stich 2019, Algorithm 1; McDonald et al. 2010).

    worker i
    1  g_i <- gradient at x_i
    2  x_i <- x_i - eta g_i                              (momentum lives here, and stays)
    3  after every H steps:  x_i <- mean of x_1 .. x_n over the live workers     (all-reduce)

A worker that leaves between two averages takes its steps since the last one along; it is not in the
next mean.

Invariants: replicas are identical after each average; the mean over the workers moves by gradients
only; H = 1 equals AR-SGD (to rounding; momentum too, for the mean of the buffers is AR-SGD's buffer).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from core.effects import AllReduce, Compute, Effect
from core.errors import is_whole, require
from core.node import Finished, Node, Program

__all__ = ["LocalSGD", "average", "check_h"]

_COMPUTE = Compute()


def check_h(h: Any) -> None:
    """Raise ``OptionError`` unless ``h`` is a whole number of at least 1."""
    whole = is_whole(h)
    require("h", h, whole and h >= 1, "a whole number of at least 1")


def average(node: Node) -> Generator[Effect, Any, None]:
    """x_i <- the mean of the live workers' parameters.

    What is reduced is a copy, for an all-reduce keeps its tensor until the next one.
    """
    mean = node.tensors.snapshot(node.params)
    yield AllReduce(mean)
    node.tensors.assign(node.params, mean)
    node.blends += 1


@dataclass(frozen=True)
class LocalSGD:
    """``h`` local steps between averages of the parameters."""

    name: ClassVar[str] = "local_sgd"
    title: ClassVar[str] = "Local SGD (periodic averaging)"
    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = True
    joins: ClassVar[bool] = True

    h: int = 8

    def __post_init__(self) -> None:
        check_h(self.h)

    def worker(self, node: Node) -> Program:
        try:
            while True:
                gradient = yield _COMPUTE
                node.optimizer.apply(node.tensors, node.params, gradient, node.lr())
                if node.step % self.h == 0:
                    yield from average(node)
        except Finished:
            return

    def server(self, node: Node) -> Program:
        raise NotImplementedError("local SGD has no servers")

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
