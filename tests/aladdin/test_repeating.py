"""Which cell has the next round: at first all, then who has a wide interval, or none that counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from aladdin.designs.basic import Basic
from aladdin.repeating import Rounds
from tests.analysis.test_verdict import CELL

NARROW = replace(CELL, measured=100.0, low=99.0, high=101.0, rounds=1)
DESIGN = Basic(
    algorithms=("bsp", "asp", "aladdin"), workers=(2,), slow=(1.0,), settings=(("paced", "native"),),
    repeats={("paced", "native"): 2}, further=1, spare=1,
)  # fmt: skip


def never(_: int) -> bool:
    return False


def always(_: int) -> bool:
    return True


class Machine:
    """Makes the rounds that are asked for, and keeps cores from those that are ``disturbed``."""

    def __init__(
        self, design: Basic = DESIGN, disturbed: tuple[tuple[int, int], ...] = (), wide: float = 1.0
    ) -> None:
        self.one = replace(NARROW, low=100.0 - wide, high=100.0 + wide)
        self.rounds = Rounds(design, design.cells())
        self.disturbed, self.left_out = disturbed, (-1, -1)
        self.chosen = dict.fromkeys(range(len(self.rounds.levels)))

    def made(self, affordable: Callable[[int], bool] = always) -> list[tuple[int, int]]:
        """All (cell, round) in the order in which they were made."""
        order = []
        for turn, i in self.rounds.schedule(self.chosen, affordable):
            order.append((i, turn))
            if (i, turn) == self.left_out:
                del self.chosen[i]
                continue
            kept = 0.4 if (i, turn) in self.disturbed else 0.01
            self.rounds.said[i, turn] = {"stolen": kept}
            self.rounds.had.setdefault(i, []).append(replace(self.one, measured=100.0 + turn % 2))
        return order


def test_all_cells_have_their_first_round_before_any_has_its_second() -> None:
    assert Machine().made() == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]


def test_first_rounds_are_made_whatever_they_cost() -> None:
    assert Machine().made(never) == [(0, 0), (1, 0), (2, 0)]


def test_what_earlier_checks_have_made_is_not_made_again() -> None:
    machine = Machine()
    machine.rounds.had = {0: [NARROW], 2: [NARROW, NARROW]}
    assert machine.made(never) == [(1, 0)]
    assert machine.made()[:2] == [(0, 1), (1, 1)]


@pytest.mark.parametrize("when", [(1, 0), (1, 2)])
def test_a_cell_that_is_left_out_meanwhile_has_no_further_rounds(when: tuple[int, int]) -> None:
    machine = Machine()
    machine.left_out = when
    order = machine.made()
    assert [turn for i, turn in order if i == 1] == list(range(when[1] + 1))
    assert (2, 2) in order


def test_a_disturbed_round_is_made_again_and_not_at_once() -> None:
    """Cell 0 loses its first three rounds of the two that it has at least."""
    machine = Machine(replace(DESIGN, spare=2), disturbed=((0, 0), (0, 1), (0, 2)))
    assert machine.made()[6:] == [(0, 2), (1, 2), (0, 3), (0, 4), (2, 2)]
    assert machine.rounds.counted(0) == [3, 4]
    assert machine.rounds.mean(0).rounds == 2
    assert "kept 40% of the cores" in machine.rounds.disturbed(0, 1)


def test_who_has_one_wide_round_has_a_second_before_others_have_a_third() -> None:
    """Though two rounds that differ by 1 % have an interval of 6 %, and one by itself of 3 % here."""
    design = replace(
        DESIGN, settings=(("paced", "native"), ("paced", "paced")), algorithms=("asp",), spare=0,
        repeats={("paced", "native"): 2, ("paced", "paced"): 1},
    )  # fmt: skip
    machine = Machine(design, wide=3.0)
    assert machine.made() == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]


def test_nor_is_the_last_of_those_that_every_cell_has() -> None:
    machine = Machine(disturbed=((2, 0), (2, 1)))
    assert machine.made()[5:8] == [(2, 1), (0, 2), (2, 2)]


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_who_loses_every_round_has_so_many_to_spare(spare: int) -> None:
    paced = replace(DESIGN, settings=(("paced", "paced"),), spare=spare)
    machine = Machine(paced, disturbed=tuple((0, turn) for turn in range(9)))
    assert [i for i, _ in machine.made()].count(0) == 1 + spare
    assert machine.rounds.counted(0) == list(range(1 + spare))  # none is better than another
