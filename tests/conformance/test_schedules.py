"""Seeded schedules, by the hundred: workers that stop, slow down, leave; every contract held all along.

A failure says how to run its schedule again, told action by action (tests/conformance/schedules.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.algorithms import ALGORITHMS
from tests.conformance.contracts import CONTRACTS
from tests.conformance.schedules import draw, run, seeded
from tests.conformance.spoiled import SPOILED

SEEDS = 40
MANY = 20_000
BLOCK = 2_000


def test_every_algorithm_has_a_contract() -> None:
    assert list(CONTRACTS) == list(ALGORITHMS)


@pytest.mark.parametrize("name", CONTRACTS)
def test_contracts_hold_under_seeded_schedules(name: str) -> None:
    for seed in range(SEEDS):
        seeded(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(MANY // BLOCK))
@pytest.mark.parametrize("name", CONTRACTS)
def test_contracts_hold_under_many_more(name: str, block: int) -> None:
    for seed in range(SEEDS + block * BLOCK, SEEDS + (block + 1) * BLOCK):
        seeded(name, seed)


@pytest.mark.parametrize(
    ("name", "seed"), [("arsgd", 11029), ("arsgd", 18474), ("arsgd", 20153), ("arsgd", 52750)]
)
def test_schedules_that_once_deadlocked(name: str, seed: int) -> None:
    """Departures while others still agree on earlier ones, and messages that nobody read."""
    seeded(name, seed)


def test_the_schedules_are_as_varied_as_they_claim() -> None:
    """Among the default seeds there are crashes that strike, slow nodes, uneven ends and lone workers."""
    drawn = [draw("asp", seed)[0] for seed in range(SEEDS)]
    assert {schedule.workers for schedule in drawn} == set(range(1, 7))
    assert sum(len(set(schedule.budgets.values())) > 1 for schedule in drawn) > SEEDS // 5
    assert sum(bool(schedule.slow) for schedule in drawn) > SEEDS // 10
    struck = [seeded("asp", seed)[0].crashed for seed in range(SEEDS)]
    assert sum(map(bool, struck)) > SEEDS // 10


@pytest.mark.parametrize(
    ("name", "how", "fewest", "spoil"), SPOILED, ids=[f"{one[0]}: {one[1]}" for one in SPOILED]
)
def test_the_checks_notice_a_broken_promise(
    name: str, how: str, fewest: int, spoil: Callable[[Any], Any]
) -> None:
    """Not in every schedule, for some have no second step; but where all stay to the end it must show in
    some, whatever n is, and whether gradients are averaged or added."""
    sizes = range(max(fewest, CONTRACTS[name].fewest), 7)
    reductions = ("sum", "mean") if name.startswith("aladdin") else (None,)
    unseen = {(n, reduce) for n in sizes for reduce in reductions}
    for seed in range(400):
        schedule, rng = draw(name, seed)
        kind = schedule.workers, schedule.options.get("reduce")
        if kind not in unseen or schedule.crashes or len(set(schedule.budgets.values())) > 1:
            continue
        try:
            run(schedule, lambda count, rng=rng: int(rng.integers(count)), spoil)  # type: ignore[misc]
        except AssertionError:
            unseen.discard(kind)
        if not unseen:
            return
    raise AssertionError(f"{how}, and nobody noticed at n, reduce = {sorted(unseen, key=str)}")
