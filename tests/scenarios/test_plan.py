"""The plan: what drivers derive from a scenario."""

from __future__ import annotations

import numpy as np
import pytest

from core.algorithms import ALGORITHMS
from core.tensors import Phantom, Tensors
from scenarios.plan import plan
from scenarios.schema import Scenario


def scenario(**tree) -> Scenario:
    return Scenario.from_dict({"run": {"steps": 3, "seed": 5}, **tree})


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_shards_cover_the_parameters_and_nodes_stand_on_machines(name) -> None:
    made = plan(scenario(algorithm=name, cluster={"workers": 3, "servers": {"count": 2}}))
    assert made.workers == 3
    assert made.parameters == sum(made.layers)
    if made.algorithm.centralized:
        assert made.servers == (3, 4)
        assert made.machine_of == (0, 1, 2, 3, 4)
        assert sum(shard.size for shard in made.shards) == made.parameters
        assert [shard.server for shard in made.shards] == [3, 4]
    else:
        assert (made.servers, made.shards, made.machine_of) == ((), (), (0, 1, 2))
    assert list(made.nodes) == list(range(len(made.machine_of)))


def test_nodes_carry_what_the_scenario_says() -> None:
    made = plan(
        scenario(
            algorithm={"name": "bsp", "lr": 0.1, "momentum": 0.5, "warmup_epochs": 1},
            cluster={"workers": 4},
            workload={"batch": 7},
        )
    )
    node = made.node(2, Phantom(made.parameters), Tensors())
    assert (node.id, node.workers, node.batch, node.live) == (2, 4, 7, {0, 1, 2, 3})
    assert node.optimizer.momentum == 0.5
    assert node.lr() == pytest.approx(0.1)
    node.step = made.samples_per_epoch
    assert node.lr() == pytest.approx(0.4)
    other = made.node(2, Phantom(made.parameters), Tensors())
    assert node.optimizer is not other.optimizer
    assert np.array_equal(node.rng("peer").random(4), other.rng("peer").random(4))
    assert not np.array_equal(node.rng("peer").random(4), made.node(1, None, Tensors()).rng("peer").random(4))
    assert made.node(4, None, Tensors()).ledger.node == 4


def test_timing_only_parameters() -> None:
    assert plan(scenario(workload={"parameters": 1000})).layers == (1000,)
