"""What the benchmark of short work simulates, and that its crowd leaves nobody behind."""

from __future__ import annotations

import os

import pytest

from benchmarks.short_work import crowd, measured, simulated
from sim.cores import AHEAD


@pytest.mark.parametrize(("busy", "others"), [(0, 0), (1, 0), (2, 1), (8, 4)])
def test_short_work_takes_as_long_as_alone_and_what_is_longer_its_share(busy: int, others: int) -> None:
    """Two cores: one is idle beside one that computes; beside eight there are four on the core it finds."""
    assert simulated(busy, AHEAD, 2) == pytest.approx(AHEAD)
    assert simulated(busy, 5 * AHEAD, 2) == pytest.approx(5 * AHEAD + 4 * AHEAD * others)


def test_work_takes_at_least_what_it_is_and_a_crowd_ends_with_its_block() -> None:
    before = _children()
    with crowd(2):
        assert measured(0.001, 2) >= 0.001
        assert len(_children() - before) == 2
    assert not _children() - before


def _children() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(file.read().split())
