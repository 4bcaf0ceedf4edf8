"""A global model in shards: every push is mixed in once, and only when a newer model is complete."""

from __future__ import annotations

import numpy as np

from core.node import MODEL, Message, Node
from core.replica import ShardedModel
from core.sharding import partition


def push(server: int, number: int, alpha: float = 0.5) -> Message:
    """The ``number``-th push of a server whose slice is all ones."""
    return Message(MODEL, np.ones(2), number, versions=number, number=alpha, source=server)


def test_a_shard_ahead_of_the_others_is_mixed_in_once() -> None:
    node = Node(0, 1, np.zeros(4), partition([4], [1, 2]))
    model = ShardedModel(node)
    model.mix_when_complete(push(1, 1))
    model.mix_when_complete(push(1, 2))
    assert (node.blends, node.params.tolist()) == (0, [0, 0, 0, 0])
    model.mix_when_complete(push(2, 1))
    assert (node.blends, node.params.tolist()) == (1, [0.5] * 4)
    model.mix_when_complete(push(2, 2))
    assert (node.blends, node.params.tolist()) == (2, [0.5, 0.5, 0.75, 0.75])
    assert model.versions == [2, 2]


def test_alpha_one_adopts_and_alpha_zero_only_counts() -> None:
    node = Node(0, 1, np.zeros(2), partition([2], [1]))
    model = ShardedModel(node)
    model.mix_when_complete(push(1, 1, alpha=0.0))
    assert (node.blends, node.params.tolist(), model.versions) == (1, [0, 0], [1])
    model.mix_when_complete(push(1, 2, alpha=1.0))
    assert (node.blends, node.params.tolist(), model.versions) == (2, [1, 1], [2])
