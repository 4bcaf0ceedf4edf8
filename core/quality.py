"""The model that a run is judged by, and how far its replicas lie apart; one rule for both drivers.

Rules this module obeys: flat NumPy arrays or torch tensors (never imported here), none of which it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

from core.sharding import Shard
from core.tensors import Tensors

__all__ = ["judged"]


def judged(
    replicas: Sequence[Any], weights: Sequence[float], served: Sequence[tuple[Shard, Any]]
) -> tuple[Any, float, float]:
    """The model, the consensus distance, and the squared distance of Lemma 1 (NaN without servers).

    replicas  the workers' parameters; weights: their push-sum weights
    served    every shard with its server's slice; empty without servers

    The model is the servers', or the mean of the replicas, weighted where weights differ. The consensus
    distance is the replicas' mean squared distance from their (unweighted) mean.
    """
    model = mean = _mean(replicas)
    distance = sum(_squared(x - mean) for x in replicas) / len(replicas)
    if served:
        model = Tensors.copy_of(mean)
        for shard, part in served:
            shard.of(model)[:] = part
        return model, distance, _squared(model - mean)
    if min(weights) != max(weights):
        model = _mean([x * weight for x, weight in zip(replicas, weights, strict=True)])
        model *= len(replicas) / sum(weights)
    return model, distance, nan


def _mean(vectors: Sequence[Any]) -> Any:
    total = Tensors.copy_of(vectors[0])
    for x in vectors[1:]:
        total += x
    total /= len(vectors)
    return total


def _squared(x: Any) -> float:
    return float((x**2).sum())
