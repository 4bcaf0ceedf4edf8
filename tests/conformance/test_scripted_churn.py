"""Nodes that come, go and fall silent on the scripted driver, where news of them is on its way, too."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.conformance import scripted_churn
from tests.conformance.careless import Generous, Hasty, Twice
from tests.conformance.scripted_churn import NAMES, seeded

SEEDS, MANY = 30, 4000


def seeded_all(name: str, seeds: int) -> Counter[str]:
    return sum((seeded(name, seed) for seed in range(seeds)), Counter[str]())


@pytest.mark.parametrize("name", NAMES)
def test_promises_are_kept_in_any_order(name: str) -> None:
    struck = seeded_all(name, SEEDS)
    assert set(struck) == {"crash", "leave", "join", "freeze", "cut"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_promises_are_kept_in_many_more_orders(name: str) -> None:
    for seed in range(SEEDS, SEEDS + MANY):
        seeded(name, seed)


@pytest.mark.parametrize(
    ("base", "careless", "words"),
    [
        ("asp", Twice, "applied as|holds a gradient to"),
        ("ssp", Hasty, "ahead, not"),
        ("gosgd", Generous, "of all weight"),
    ],
)
def test_a_broken_promise_shows(
    base: str, careless: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripted_churn, "make", lambda _, options: careless(**options))
    with pytest.raises(AssertionError, match=words):
        seeded_all(base, 400)
