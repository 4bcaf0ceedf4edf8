"""A problem whose answers are known: noisy quadratics, one flat vector, exact gradients.

f_i(x) = 1/2 |x - c_i|^2 with a centre per (worker, step); the gradient is x - c.
"""

from __future__ import annotations

import numpy as np

from core.node import Node
from core.optimizer import MomentumSGD, Schedule
from core.record import Ledger
from core.sharding import partition
from core.tensors import Tensors
from scenarios.streams import stream

SIZE = 12


def centre(rank: int, step: int) -> np.ndarray:
    """The minimum of the mini-batch that ``rank`` sees at ``step``."""
    return np.random.default_rng([7, rank, step]).normal(size=SIZE)


def gradient(params: np.ndarray, rank: int, step: int) -> np.ndarray:
    """x - c, a fresh vector."""
    return params - centre(rank, step)


def initial() -> np.ndarray:
    """Where every run starts."""
    return np.linspace(-1.0, 1.0, SIZE)


def schedule_of(workers: int, lr: float = 0.05) -> Schedule:
    """One epoch of two steps of all to warm up, then a decay."""
    return Schedule(lr, workers, warmup_epochs=1, milestones=(2,), samples_per_epoch=2 * workers)


def build(workers: int, servers: int, lr: float = 0.05, momentum: float = 0.9) -> list[Node]:
    """Workers with whole replicas and, if any, servers with their slices of the same start."""
    shards = partition([SIZE], list(range(workers, workers + servers))) if servers else ()
    schedule = schedule_of(workers, lr)

    def node(i: int, params: np.ndarray) -> Node:
        return Node(
            i, workers, params, shards, Tensors(), MomentumSGD(momentum), schedule, ledger=Ledger(i),
            stream=lambda node, purpose: stream(7, node, purpose),
        )  # fmt: skip

    nodes = [node(rank, initial()) for rank in range(workers)]
    return nodes + [node(shard.server, shard.of(initial()).copy()) for shard in shards]


def large_batch(
    workers: int, steps: int, schedule: Schedule | None = None, momentum: float = 0.9
) -> np.ndarray:
    """SGD with momentum on the union of all workers' batches: what synchronous algorithms must equal.

    Eta is 0.05 n unless a schedule says otherwise; a sample per worker and step.
    """
    eta = (schedule or Schedule(0.05, workers)).at
    x, velocity = initial(), np.zeros(SIZE)
    for step in range(steps):
        mean = np.mean([gradient(x, rank, step) for rank in range(workers)], axis=0)
        velocity = momentum * velocity + mean
        x = x - eta(step * workers) * velocity
    return x
