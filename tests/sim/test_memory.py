"""The garbage collector during runs: as it was afterwards, and what runs leave behind is collected."""

from __future__ import annotations

import gc
from typing import ClassVar

import numpy as np
import pytest

import sim
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


def test_large_tensors_of_ended_runs_go_before_the_next_are_made() -> None:
    Cycle.alive, room = 0, memory.Room(100)
    with memory.undisturbed():
        Cycle()
        room.make(60)
        room.make(60)
        assert Cycle.alive == 1
        room.make(1)
        assert Cycle.alive == 0
        Cycle()
        room.make(100)
        assert Cycle.alive == 1


def test_runs_with_numerics_say_how_large_their_tensors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from sim import numerics
    from tests.sim.test_numerics import scenario

    class Watched(memory.Room):
        asked: ClassVar[list[int]] = []

        def make(self, size: int) -> None:
            self.asked.append(size)

    class Nothing:
        initial = np.zeros(4, dtype=np.float32)

        def __call__(self, params: np.ndarray, rank: int, step: int) -> np.ndarray:
            return np.zeros_like(params)

    monkeypatch.setattr(numerics, "ROOM", Watched())
    sim.simulate(scenario("asp", 3, 2, **{"workload.parameters": 4}), gradients=Nothing())
    assert Watched.asked == [3 * 4 * 16]


def test_what_runs_leave_behind_does_not_pile_up() -> None:
    Cycle.alive = 0
    for _ in range(3 * memory.OFTEN):
        with memory.seldom():
            Cycle()
    assert Cycle.alive <= memory.OFTEN
