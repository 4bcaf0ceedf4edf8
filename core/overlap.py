"""Buckets of a gradient that may be reduced while the backward pass still produces the others.

Rules this module obeys:

* The backward pass takes the last ``share`` of a step, and as long for each layer. It begins with the
  last layer, whose part of the flat gradient is the last.
* A bucket is made of whole layers, from the last one on, until it holds ``nbytes`` or more (Li et al.
  2020, "PyTorch Distributed", section 3.2; 25 MB there); it is ready when all of its layers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Bucket", "by_layers", "evenly", "in_two"]


class Bucket(NamedTuple):
    """Elements ``start`` .. ``stop`` of the gradient, there after the share ``ready`` of the step."""

    start: int
    stop: int
    ready: float


def by_layers(layers: Sequence[int], nbytes: float, share: float) -> tuple[Bucket, ...]:
    """Buckets of whole layers (elements each, float32) of at least ``nbytes``, but for the last one."""
    stop = start = sum(layers)
    found = []
    for done, size in enumerate(reversed(layers), 1):
        start -= size
        if (stop - start) * 4 >= nbytes or done == len(layers):
            found.append(Bucket(start, stop, _at(done / len(layers), share)))
            stop = start
    return tuple(found)


def evenly(size: int, count: int, share: float) -> tuple[Bucket, ...]:
    """``count`` equal buckets of ``size`` elements, produced at an even pace."""
    cuts = [size - k * size // count for k in range(count + 1)]
    return tuple(Bucket(cuts[k + 1], cuts[k], _at((k + 1) / count, share)) for k in range(count))


def in_two(size: int, hidden: float, share: float) -> tuple[Bucket, ...]:
    """The part ``hidden`` of the gradient is there when the backward pass begins, the rest when it ends."""
    cut = size - round(hidden * size)
    return Bucket(cut, size, _at(0.0, share)), Bucket(0, cut, 1.0)


def _at(done: float, share: float) -> float:
    """The share of the step at which so much of the backward pass is done."""
    return 1.0 if done == 1.0 else 1.0 - share * (1.0 - done)
