"""The rounds of a cross-check's cells: which of them count, and which cell has the next one.

Rules this module obeys:

* All cells have their first round, then those they have at least, then further ones where intervals are
  wide, as long as there is time: first the cells with the fewest rounds that count, of these the widest.
  (Of two rounds an interval is six times as wide as they scatter: by width alone those would have all the
  time, and who had one round, however odd, no second.) Errors are never looked at.
* A round during which the machine changed its speed (``aladdin.rounds.disturbed``) does not count where
  others of its cell do. Another is made in its place, up to ``Design.spare`` times, and not at once if
  another cell waits: what disturbed the machine is often still there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from math import inf
from typing import Any

from aladdin.designs import Design, Levels
from aladdin.rounds import disturbed
from analysis.crosscheck import Cell, combine

__all__ = ["AIM", "Rounds"]

AIM = 0.025
"""Half of a cell's interval, relative, at which it has rounds enough."""


class Rounds:
    """The rounds that every cell has had, and which is next. Cells are known by their place in the design.

    had   the rounds of each cell that has any, in their order
    said  what is known of each round, (cell, round): its prediction, and how the machine was
    """

    def __init__(self, design: Design, levels: Sequence[Levels]) -> None:
        self.design, self.levels, self.spare = design, levels, design.spare
        self.had: dict[int, list[Cell]] = {}
        self.said: dict[tuple[int, int], dict[str, Any]] = {}

    def schedule(
        self, chosen: Collection[int], affordable: Callable[[int], bool]
    ) -> Iterator[tuple[int, int]]:
        """(round, cell) of the ``chosen``, each to be made before the next is asked for.

        chosen      is looked at anew each time: cells may be left out of it meanwhile
        affordable  says whether there is time for another round of a cell; the first is always made
        """
        last = -1
        least = {i: self.design.rounds(self.levels[i])[0] for i in chosen}
        for turn in range(max(least.values(), default=0)):
            for i in list(chosen):
                if turn < least[i] and len(self.had.get(i, ())) <= turn and (not turn or affordable(i)):
                    last = i
                    yield turn, i
        while True:
            wide = {i: self._width(i) for i in chosen if self._open(i) and affordable(i)}
            if not wide:
                return
            waiting = wide if len(wide) == 1 or not self._failed(last) else wide.keys() - {last}
            last = max(sorted(waiting), key=lambda i: (-len(self._sound(i)), wide[i]))
            yield len(self.had[last]), last

    def expected(self, chosen: Collection[int]) -> int:
        """Rounds that the ``chosen`` have at least."""
        return sum(self.design.rounds(self.levels[i])[0] for i in chosen)

    def counted(self, i: int) -> list[int]:
        """Which rounds of a cell count: those during which the machine kept its speed; all if none did."""
        return self._sound(i) or list(range(len(self.had[i])))

    def mean(self, i: int) -> Cell:
        """A cell as the rounds of it that count have it."""
        return combine([self.had[i][turn] for turn in self.counted(i)])

    def disturbed(self, i: int, turn: int) -> str:
        """Why a round does not count; empty if it does."""
        own = self.workload(i)
        alike = [said for (j, _), said in self.said.items() if self.workload(j) == own]
        return disturbed(self.said.get((i, turn), {}), alike)

    def _open(self, i: int) -> bool:
        """Whether a cell should have a further round."""
        least, most = self.design.rounds(self.levels[i])
        if i not in self.had or len(self.had[i]) >= most + self.spare:
            return False
        sound = len(self._sound(i))
        return sound < least or (sound < most and self._width(i) > AIM)

    def _width(self, i: int) -> float:
        """Half of a cell's interval, relative; no limit where no round of it counts by itself."""
        return self.mean(i).width if self._sound(i) else inf

    def _sound(self, i: int) -> list[int]:
        return [turn for turn in range(len(self.had[i])) if not self.disturbed(i, turn)]

    def _failed(self, i: int) -> bool:
        """Whether the last round of a cell does not count."""
        return i in self.had and bool(self.disturbed(i, len(self.had[i]) - 1))

    def workload(self, i: int) -> str:
        """The name of what its constants are probed with."""
        return self.design.workload(self.levels[i])[0]
