"""Designs of cross-checks: which cells there are, how each runs, how often and how long.

Rules this module obeys:

* A design says what is run, never what comes out: lengths follow from predictions, repetitions from
  intervals.
* Cells are mappings of levels, as ``analysis.crosscheck.compare`` takes them: algorithm, n, slow, links,
  compute, and in the committed designs bandwidth, message and faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from analysis.crosscheck import Prediction
from scenarios import Scenario

__all__ = ["Design", "Levels"]

Levels = Mapping[str, Any]
"""The levels of one cell."""


class Design(Protocol):
    """The cells of a cross-check and how they are run.

    workers  numbers of workers that constants are probed at; links: kinds of links that are probed
    spare    rounds that a cell may have besides, in place of disturbed ones
    """

    @property
    def name(self) -> str: ...

    @property
    def workers(self) -> Sequence[int]: ...

    @property
    def links(self) -> Sequence[str]: ...

    @property
    def spare(self) -> int: ...

    def cells(self) -> list[dict[str, Any]]:
        """Levels of every cell, in the order in which they run."""
        ...

    def scenario(self, base: Scenario, cell: Levels) -> Scenario:
        """The scenario of one cell; raises ``ScenarioError`` for one that cannot be."""
        ...

    def workload(self, cell: Levels) -> tuple[str, dict[str, Any]]:
        """A name, and the fields of the scenario that its constants are probed with."""
        ...

    def seconds(self, cell: Levels, prediction: Prediction) -> float:
        """How long to run a cell, by what is predicted of it."""
        ...

    def rounds(self, cell: Levels) -> tuple[int, int]:
        """How often a cell is predicted and run: at least, and at most."""
        ...
