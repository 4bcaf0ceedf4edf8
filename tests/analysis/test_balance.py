"""The search for a fraction: balanced, the same for a seed, cheap where it can be."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from analysis.balance import assign, circumstances, meetings, spread

FACTORS = {"a": [1, 2, 3], "b": ["x", "y", "z"], "c": ["low", "high"]}


def test_pairs_of_levels_meet_evenly() -> None:
    rows = circumstances(FACTORS, 18, seed=1, steps=6000)
    assert len({tuple(row.values()) for row in rows}) == 18
    for first, second in itertools.combinations(FACTORS, 2):
        assert spread(rows, first, second) == 0
    assert rows == circumstances(FACTORS, 18, seed=1, steps=6000)


def test_the_cheaper_of_balanced_designs_is_taken() -> None:
    def cost(row: dict[str, Any]) -> float:
        return float(row["a"] * (row["c"] == "high") * (row["b"] == "z"))

    dear = circumstances(FACTORS, 9, seed=2, cost=lambda row: -cost(row), steps=6000)
    cheap = circumstances(FACTORS, 9, seed=2, cost=cost, steps=6000)
    assert sum(map(cost, cheap)) < sum(map(cost, dear))


def test_algorithms_are_handed_out_evenly() -> None:
    rows = circumstances(FACTORS, 6, seed=0, steps=2000)
    cells = assign(rows, ["p", "q", "r", "s"], 2, seed=0, steps=4000)
    assert Counter(cell["algorithm"] for cell in cells) == {"p": 3, "q": 3, "r": 3, "s": 3}
    for row in rows:
        here = [cell["algorithm"] for cell in cells if all(cell[name] == row[name] for name in FACTORS)]
        assert len(set(here)) == 2
    assert min(meetings(cells, "algorithm", "c").values()) >= 1
