"""Tagged gradients: a problem in which every gradient can be told from every other by what it did.

The gradient of (rank, step) is a unit vector of its own, whatever the parameters are; all start from
zero, without momentum, with eta = 1. Then the coordinate (rank, step) of a parameter vector says
how much of that gradient is in it: minus one for one that was applied once with eta, minus two for one
that was applied twice, zero for a lost one. The vector holds one copy of all tags per server, so each
server's slice tells the whole story.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.node import Node
from core.optimizer import MomentumSGD, Schedule
from core.record import Ledger
from core.sharding import partition
from core.tensors import Tensors
from scenarios.streams import stream

__all__ = ["Tags"]


@dataclass(frozen=True)
class Tags:
    """Tags for ``workers`` that take at most ``steps`` steps each, on ``servers`` slices."""

    workers: int
    steps: int
    servers: int = 1

    @property
    def size(self) -> int:
        """Elements of the flat vector."""
        return self.servers * self.workers * self.steps

    @property
    def initial(self) -> np.ndarray:
        """Zeros."""
        return np.zeros(self.size)

    def __call__(self, params: np.ndarray, rank: int, step: int) -> np.ndarray:
        """The unit vector of (rank, step), once per slice."""
        gradient = np.zeros((self.servers, self.workers, self.steps))
        gradient[:, rank, step] = 1.0
        return gradient.reshape(-1)

    def shares(self, flat: np.ndarray) -> np.ndarray:
        """(slices, workers, steps): how much of each gradient is in ``flat``, whole vector or slice."""
        return -flat.reshape(-1, self.workers, self.steps)

    def nodes(self, centralized: bool, seed: int = 0) -> list[Node]:
        """Workers and, for a centralized algorithm, servers."""
        n = self.workers
        servers = range(n, n + self.servers) if centralized else range(0)
        shards = partition([self.size], list(servers)) if centralized else ()
        sizes = dict.fromkeys(range(n), self.size) | {shard.server: shard.size for shard in shards}
        return [
            Node(
                id, n, np.zeros(size), shards, Tensors(), MomentumSGD(0.0), Schedule(1.0, n, "none"),
                ledger=Ledger(id), stream=lambda node, purpose: stream(seed, node, purpose),
            )
            for id, size in sizes.items()
        ]  # fmt: skip
