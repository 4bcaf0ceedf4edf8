"""Partition of a flat parameter vector over servers: contiguous slices, layer-wise or memory-wise.

Layer-wise keeps every layer whole and cuts between layers so that the largest shard is as small
as contiguity allows; it is never smaller than the largest layer. Memory-wise cuts anywhere, into equal
parts (ALADDIN, section 3.3: layers above the maximum shard size are split over several servers; equal
parts are the smallest maximum that so many servers can have). A shard is one slice, so that a message
is one tensor: layer-wise bins of layers from anywhere would gain little (docs/results/sharding.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import OptionError, require

__all__ = ["SHARDINGS", "Shard", "partition"]

SHARDINGS = ("memory", "layer")


@dataclass(frozen=True, slots=True)
class Shard:
    """Elements ``start:stop`` of the flat vector, kept by the node ``server``."""

    index: int
    server: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Elements in this shard."""
        return self.stop - self.start

    def of(self, flat: Any) -> Any:
        """This shard's view of a flat tensor (or Phantom)."""
        return flat[self.start : self.stop]


def partition(layers: Sequence[int], servers: Sequence[int], how: str = "memory") -> tuple[Shard, ...]:
    """Split ``sum(layers)`` elements over ``servers`` (node ids), one shard each.

    Raises ``OptionError`` for an unknown ``how`` and where shards would stay empty: more servers
    than parameters (memory-wise) or than layers (layer-wise).
    """
    require("sharding", how, how in SHARDINGS, " or ".join(SHARDINGS))
    total, count = sum(layers), len(servers)
    pieces, what = (total, "parameters") if how == "memory" else (len(layers), "layers")
    if count < 1 or count > pieces:
        raise OptionError("servers", count, f"between 1 and {pieces}, the number of {what}")
    cuts = [i * total // count for i in range(count + 1)] if how == "memory" else _layer_cuts(layers, count)
    return tuple(Shard(i, server, cuts[i], cuts[i + 1]) for i, server in enumerate(servers))


def _layer_cuts(layers: Sequence[int], count: int) -> list[int]:
    """Cut positions of the contiguous grouping into ``count`` parts with the smallest largest part."""
    low, high = max(layers), sum(layers)
    while low < high:
        middle = (low + high) // 2
        if _groups(layers, middle) <= count:
            high = middle
        else:
            low = middle + 1
    cuts, position, held, left = [0], 0, 0, len(layers)
    for size in layers:
        open_parts = count - len(cuts)
        if held and (held + size > low or left <= open_parts) and open_parts:
            cuts.append(position)
            held = 0
        held, position, left = held + size, position + size, left - 1
    return [*cuts, position]


def _groups(layers: Sequence[int], limit: int) -> int:
    """Groups that a greedy left-to-right packing with at most ``limit`` elements each needs."""
    groups, held = 1, 0
    for size in layers:
        if held + size > limit:
            groups, held = groups + 1, 0
        held += size
    return groups
