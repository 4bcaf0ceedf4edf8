"""The learning rate follows the samples of all workers, and is the same wherever a gradient is applied."""

from __future__ import annotations

import numpy as np
import pytest

from core.node import Node
from core.optimizer import Schedule

SCHEDULE = Schedule(lr=0.1, workers=4, warmup_epochs=2, milestones=(3, 5), decay=0.5, samples_per_epoch=40)


@pytest.mark.parametrize(
    ("epoch", "eta"), [(0, 0.1), (1, 0.25), (2, 0.4), (2.9, 0.4), (3, 0.2), (4.9, 0.2), (5, 0.1)]
)
def test_warm_up_and_decay(epoch: float, eta: float) -> None:
    assert SCHEDULE.at(40 * epoch) == pytest.approx(eta)


def test_without_scaling_eta_does_not_grow_with_n() -> None:
    assert Schedule(lr=0.1, workers=4, scaling="none").at(0) == 0.1


def test_workers_and_servers_use_the_same_eta_for_the_same_round() -> None:
    """The k-th gradient of a worker, and the mean of all k-th gradients on a server that counts them."""
    worker = Node(1, 4, np.zeros(1), schedule=SCHEDULE, batch=5)
    server = Node(4, 4, np.zeros(1), schedule=SCHEDULE, batch=5)
    for _ in range(12):
        worker.step += 1
        for rank in range(4):
            server.ledger.hold(rank, 1, 0)
        assert worker.lr() == server.lr()
        server.ledger.settle(0)
