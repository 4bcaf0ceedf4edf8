"""The garbage collector during runs: as it was afterwards, and what runs leave behind is collected."""

from __future__ import annotations

import gc

import pytest

from sim import memory


class Cycle:
    """Garbage that only the collector finds."""

    alive = 0

    def __init__(self) -> None:
        self.me = self
        Cycle.alive += 1

    def __del__(self) -> None:
        Cycle.alive -= 1


def test_what_was_set_before_is_set_again() -> None:
    before = gc.get_threshold()
    during: list[int] = []

    def run() -> None:
        with memory.seldom():
            during.append(gc.get_threshold()[0])
            raise ValueError("amid")

    with pytest.raises(ValueError, match="amid"):
        run()
    assert during == [memory.SELDOM]
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_what_runs_leave_behind_does_not_pile_up() -> None:
    Cycle.alive = 0
    for _ in range(3 * memory.OFTEN):
        with memory.seldom():
            Cycle()
    assert Cycle.alive <= memory.OFTEN
