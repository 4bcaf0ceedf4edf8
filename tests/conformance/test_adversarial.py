"""Adversarial orders: hypothesis picks every delivery and every resumption, and shrinks what it finds.

The choices are data: a string of bytes, each the index of the action to take next (modulo how many
there are). When they run out the first action is taken, so a short string is a simple schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.contracts import CONTRACTS
from tests.conformance.schedules import Schedule, run


def chooser(choices: bytes) -> Callable[[int], int]:
    """Choices from bytes, then always the first."""
    left = iter(choices)
    return lambda count: next(left, 0) % count


@st.composite
def schedules(draw: st.DrawFn, name: str) -> Schedule:
    contract = CONTRACTS[name]
    workers = draw(st.integers(contract.fewest, 4))
    servers = draw(st.integers(1, 2))
    uneven = draw(st.booleans())
    steps = st.integers(1, 5)
    most = draw(steps)
    budgets = {i: draw(st.integers(0, most)) if uneven else most for i in range(workers)}
    victims = draw(st.lists(st.integers(0, workers - 1), max_size=workers - 1, unique=True))
    return Schedule(
        name=name,
        workers=workers,
        servers=servers,
        budgets=budgets | dict.fromkeys(range(workers, workers + servers), 0),
        options=contract.options(np.random.default_rng(draw(st.integers(0, 99))), workers),
        window=draw(st.sampled_from([1, 2, inf])),
        inbox=draw(st.sampled_from([2, 1, inf])),
        crashes={draw(st.integers(0, 200)): victim for victim in victims},
        seed=draw(st.integers(0, 9)),
    )


@pytest.mark.parametrize("name", CONTRACTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_contracts_hold_whatever_is_chosen(name: str, data: st.DataObject) -> None:
    schedule = data.draw(schedules(name))
    run(schedule, chooser(data.draw(st.binary(max_size=300))))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTRACTS)
@settings(max_examples=3000, deadline=None)
@given(data=st.data())
def test_contracts_hold_whatever_else_is_chosen(name: str, data: st.DataObject) -> None:
    schedule = data.draw(schedules(name))
    run(schedule, chooser(data.draw(st.binary(max_size=1000))))
