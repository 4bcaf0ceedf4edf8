"""AR-SGD: synchronous SGD by all-reduce, without servers.

    worker i
    1  g_i <- gradient at x_i
    2  g <- mean of g_1 .. g_n over the live workers     (all-reduce)
    3  x_i <- x_i - eta g                                (momentum lives here)

With ``overlap: backward`` lines 1 and 2 work bucket by bucket: while the backward pass produces the next
buckets, those that are there are reduced, one after the other (Li et al. 2020, "PyTorch Distributed").

Invariants: all replicas stay identical; the run equals SGD on the union of the workers' batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from core.effects import AllReduce, Compute, Produced
from core.errors import is_number, is_whole, require
from core.node import Finished, Node, Program
from core.overlap import Bucket, by_layers, evenly, in_two

__all__ = ["ARSGD"]

_COMPUTE, _PRODUCED = Compute(), Produced()


@dataclass(frozen=True)
class ARSGD:
    """All-reduce SGD (the all-reduce itself is chosen in ``cluster.network``).

    overlap       none | backward: reduce buckets while the backward pass goes on
    bucket_bytes  a bucket is as many whole layers as reach this size
    buckets       above 0: so many equal buckets instead, produced at an even pace
    hidden        above 0: instead, this part of the gradient is there when the backward pass begins, the
                  rest when it ends (for models with a fitted share of communication that is hidden)
    backward      share of a step that the backward pass takes: it costs twice the forward pass
    """

    name: ClassVar[str] = "arsgd"
    title: ClassVar[str] = "AR-SGD (synchronous, all-reduce)"
    centralized: ClassVar[bool] = False
    collective: ClassVar[bool] = True
    joins: ClassVar[bool] = True

    overlap: str = "none"
    bucket_bytes: float = 25e6
    buckets: int = 0
    hidden: float = 0.0
    backward: float = 2 / 3

    def __post_init__(self) -> None:
        require("overlap", self.overlap, self.overlap in ("none", "backward"), "none or backward")
        size, part, share = self.bucket_bytes, self.hidden, self.backward
        require("bucket_bytes", size, is_number(size) and size > 0, "a number of bytes above 0")
        count = self.buckets
        require("buckets", count, is_whole(count) and count >= 0, "a whole number of at least 0")
        require("hidden", part, is_number(part) and 0 <= part < 1, "a number of at least 0 and below 1")
        require("backward", share, is_number(share) and 0 < share < 1, "a number between 0 and 1")
        require("hidden", part, not (part and count), "0 where buckets is above 0")
        for name, given in (("buckets", count), ("hidden", part)):
            require(name, given, not given or self.overlap == "backward", "0 unless overlap is backward")

    def _plan(self, node: Node) -> tuple[Bucket, ...]:
        """The buckets, in the order in which they are produced; the whole gradient without overlap."""
        size = len(node.params)
        if self.overlap == "none":
            return (Bucket(0, size, 1.0),)
        if self.hidden:
            return in_two(size, self.hidden, self.backward)
        if self.buckets:
            return evenly(size, min(self.buckets, size), self.backward)
        return by_layers(node.layers or (size,), self.bucket_bytes, self.backward)

    def worker(self, node: Node) -> Program:
        plan = self._plan(node)
        whole = len(plan) == 1
        compute = _COMPUTE if whole else Compute(tuple(bucket.ready for bucket in plan))
        try:
            while True:
                gradient = yield compute
                for number, bucket in enumerate(plan):
                    if number:
                        yield _PRODUCED
                    yield AllReduce(gradient if whole else gradient[bucket.start : bucket.stop])
                node.optimizer.apply(node.tensors, node.params, gradient, node.lr())
        except Finished:
            return

    def server(self, node: Node) -> Program:
        raise NotImplementedError("AR-SGD has no servers")

    def companions(self, node: Node) -> Iterable[Program]:
        return ()
