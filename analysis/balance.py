"""Fractions of a full design: circumstances and algorithms chosen so that levels meet evenly.

Rules this module obeys:

* A design is rows of levels, nothing more: what a level means is its user's business.
* The search is seeded simulated annealing with swaps inside a column, so the counts of every level stay
  as balanced as they began, and only what levels meet is improved. The same seed gives the same design.
* What a design is like is measured (``meetings``), so a test can hold the committed one to it.

The first stage chooses *circumstances* (rows without an algorithm), the second hands every one of them
the same number of algorithms: so each group of rows that differ in the algorithm alone can be ranked.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["assign", "circumstances", "meetings", "spread"]

Row = dict[str, Any]


def meetings(rows: Sequence[Mapping[str, Any]], first: str, second: str) -> Counter[tuple[Any, Any]]:
    """How often each level of ``first`` meets each of ``second``; pairs that never meet count 0."""
    own, other = (dict.fromkeys(row[name] for row in rows) for name in (first, second))
    found = Counter(dict.fromkeys(itertools.product(own, other), 0))
    found.update((row[first], row[second]) for row in rows)
    return found


def spread(rows: Sequence[Mapping[str, Any]], first: str, second: str) -> int:
    """The most often that two levels meet less the least often: 0 or 1 is as even as can be."""
    counts = meetings(rows, first, second).values()
    return max(counts) - min(counts)


def circumstances(
    factors: Mapping[str, Sequence[Any]],
    count: int,
    seed: int,
    cost: Callable[[Row], float] | None = None,
    steps: int = 20_000,
) -> list[Row]:
    """``count`` different rows of ``factors``, levels balanced one by one and in pairs.

    ``cost`` of a row: of two designs that are equally balanced the cheaper one is taken.
    """
    rng = np.random.default_rng(seed)
    names = list(factors)
    columns = [rng.permutation(np.arange(count) % len(factors[name])) for name in names]
    table = np.stack(columns, axis=1)
    cost = cost or (lambda _: 0.0)
    price: dict[tuple[int, ...], float] = {
        levels: cost({name: factors[name][level] for name, level in zip(names, levels, strict=True)})
        for levels in itertools.product(*(range(len(factors[name])) for name in names))
    }
    scale = 1e-3 / (max(price.values()) or 1.0)
    sizes = [len(factors[name]) for name in names]

    def worth(table: np.ndarray) -> float:
        uneven = 0.0
        for a, b in itertools.combinations(range(len(names)), 2):
            met = np.bincount(table[:, a] * sizes[b] + table[:, b], minlength=sizes[a] * sizes[b])
            uneven += float(np.square(met - count / (sizes[a] * sizes[b])).sum())
        rows = [tuple(row) for row in table.tolist()]
        return uneven + 10.0 * (len(rows) - len(set(rows))) + scale * sum(price[row] for row in rows)

    def swap(table: np.ndarray) -> np.ndarray:
        other = table.copy()
        column, (i, j) = rng.integers(len(names)), rng.integers(count, size=2)
        other[[i, j], column] = other[[j, i], column]
        return other

    best = _anneal(table, worth, swap, steps, rng)
    rows = sorted(best.tolist())
    return [{name: factors[name][level] for name, level in zip(names, row, strict=True)} for row in rows]


def assign(
    rows: Sequence[Row], algorithms: Sequence[str], each: int, seed: int, steps: int = 60_000
) -> list[Row]:
    """Every row ``each`` times, with different algorithms; every algorithm equally often, up to one.

    The first of ``algorithms`` are those that have one row more. Each is spread over the levels of every
    factor, and meets as many different others as can be.
    """
    rng = np.random.default_rng(seed)
    names = list(rows[0])
    levels = [list(dict.fromkeys(row[name] for row in rows)) for name in names]
    coded = [
        np.array([own.index(row[name]) for row in rows]) for name, own in zip(names, levels, strict=True)
    ]
    count, kinds = len(rows) * each, len(algorithms)
    slots = np.repeat(np.arange(len(rows)), each)
    chosen = rng.permutation(np.arange(count) % kinds)

    def worth(chosen: np.ndarray) -> float:
        value = 0.0
        for code, own in zip(coded, levels, strict=True):
            met = np.bincount(chosen * len(own) + code[slots], minlength=kinds * len(own))
            value += float(np.square(met - count / (kinds * len(own))).sum()) + 5.0 * float((met == 0).sum())
        groups = np.sort(chosen.reshape(len(rows), each), axis=1)
        value += 20.0 * float((np.diff(groups, axis=1) == 0).sum())
        pairs = [groups[:, a] * kinds + groups[:, b] for a, b in itertools.combinations(range(each), 2)]
        met = np.bincount(np.concatenate(pairs), minlength=kinds * kinds)
        return value + 0.2 * float((met * (met - 1)).sum())

    def swap(chosen: np.ndarray) -> np.ndarray:
        other = chosen.copy()
        i, j = rng.integers(count, size=2)
        other[[i, j]] = other[[j, i]]
        return other

    best = _anneal(chosen, worth, swap, steps, rng).reshape(len(rows), each)
    return [
        {"algorithm": algorithms[kind], **row}
        for row, kinds_here in zip(rows, best.tolist(), strict=True)
        for kind in sorted(kinds_here)
    ]


def _anneal(
    state: np.ndarray,
    worth: Callable[[np.ndarray], float],
    change: Callable[[np.ndarray], np.ndarray],
    steps: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The state of least ``worth`` that was seen while the temperature fell from 2 to 0.02."""
    now = least = worth(state)
    best = state
    for step in range(steps):
        other = change(state)
        value = worth(other)
        temperature = 2.0 * 0.01 ** (step / steps)
        if value <= now or rng.random() < math.exp((now - value) / temperature):
            state, now = other, value
            if now < least:
                best, least = state, now
    return best
