"""Every algorithm's contract on random simulated clusters (tests/conformance/clusters.py)."""

from __future__ import annotations

from functools import cache

import pytest

from core.record import Record
from tests.conformance.audit import Audit
from tests.conformance.clusters import draw, seeded
from tests.conformance.contracts import CONTRACTS

SEEDS = 25
MANY = 5_000


@pytest.mark.parametrize("name", CONTRACTS)
def test_contracts_hold_on_random_clusters(name: str) -> None:
    for seed in range(SEEDS):
        seeded(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTRACTS)
def test_contracts_hold_on_many_more_clusters(name: str) -> None:
    for seed in range(SEEDS, MANY):
        seeded(name, seed)


@pytest.mark.parametrize(("name", "seed"), [("arsgd", 107), ("sgp", 153), ("post_local_sgd", 191)])
def test_clusters_that_once_deadlocked(name: str, seed: int) -> None:
    """Whoever got room because a node died sent to that node again, into an inbox that nobody reads."""
    seeded(name, seed)


def test_the_clusters_are_as_varied_as_they_claim() -> None:
    """Workers die in the middle, messages queue, some runs end by the clock."""
    struck = sum(any(audit.nodes[rank].step > 0 for rank in audit.died) for _, audit in runs())
    ahead = sum(len({node.step for node in audit.workers}) > 1 for _, audit in runs())
    waited = sum(record.nodes["wait"].sum() + record.nodes["send"].sum() > 0 for record, _ in runs())
    assert struck > SEEDS // 10
    assert ahead > SEEDS // 5
    assert waited > SEEDS // 2
    assert {draw("asp", seed).scenario.cluster.network.admission for seed in range(SEEDS)} == {
        "fifo",
        "fair",
        2,
    }


@cache
def runs() -> list[tuple[Record, Audit]]:
    return [seeded("asp", seed) for seed in range(SEEDS)]
