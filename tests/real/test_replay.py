"""A server that is killed at any moment goes on from its journal: nothing is lost, nothing comes twice."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from real import journal
from tests.real.kept import Cluster

ALGORITHMS = [
    "bsp", "asp", "ssp", "dssp", "easgd", "aladdin", "aladdin_l1", "aladdin_l2",
    {"name": "aladdin", "options": {"pi": 3, "push": "queue", "on_busy": "wait"}},
]  # fmt: skip


def reconciled(cluster: Cluster) -> None:
    """All is there that the living computed, and no more than that of the dead."""
    arrived = cluster.ledgers() if cluster.plan.accounts else {}
    for worker, counts in arrived.items():
        if worker in cluster.dead:
            assert max(counts) <= cluster.computed.get(worker, 0)
        else:
            assert counts == [cluster.computed[worker]] * len(cluster.plan.servers)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=str)
@pytest.mark.parametrize("every", [0, 25])
@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 60), marks=pytest.mark.slow)], ids=len)
def test_no_gradient_is_lost_or_applied_twice(
    algorithm: object, every: float, seeds: range, tmp_path: Path
) -> None:
    for seed in seeds:
        cluster = Cluster(algorithm, tmp_path / str(seed), workers=3, servers=2, seed=seed, every=every)
        kills = {cluster.random.randrange(2, 700): 3 + k % 2 for k in range(4)}
        if seed % 2:
            kills[cluster.random.randrange(2, 400)] = cluster.random.randrange(3)
        cluster.run(kills)
        reconciled(cluster)


@pytest.mark.parametrize("every", [0, 20])
def test_bsp_gives_the_same_parameters_to_the_bit(every: float, tmp_path: Path) -> None:
    whole = Cluster("bsp", tmp_path / "whole", seed=1)
    whole.run()
    for seed in range(8):
        cluster = Cluster("bsp", tmp_path / str(seed), seed=seed, every=every)
        cluster.run({cluster.random.randrange(2, 250): 2, cluster.random.randrange(2, 250): 2})
        keeper = cluster.lives[2].keeper
        assert keeper is not None
        assert keeper.replayed
        assert torch.equal(cluster.model(), whole.model())
        reconciled(cluster)


def test_that_another_server_came_back_is_no_news(tmp_path: Path) -> None:
    """A server that plays its journal again finds others in another life than when the run began."""
    cluster = Cluster("ssp", tmp_path, workers=2, servers=2, seed=5)
    cluster.run({60: 2, 160: 3})
    told = journal.read(tmp_path / "3", {"run": "test", "node": 3}).arrivals
    assert {one[0] for one in told if len(one) == 2} == {0, 1}
    assert cluster.lives[3].node.live <= {0, 1}
    reconciled(cluster)
