"""What the probes before and after the rounds of a cross-check have said, one by one, in their order.

Rules this module obeys:

* What is kept is what each probe said by itself. What a prediction takes is pooled from it anew, so a
  check that goes on pools what it would have pooled had it never been stopped.
* Only probes of finished rounds count in a check that goes on: the others are made again.
* What scatters more than it drifts is probed ``FIRST`` times before the first round of a workload, before
  each round until there are ``ENOUGH`` probes of it, and then before every ``SELDOM``-th.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from aladdin.pooling import anew, pooled
from analysis.repetitions import scatter
from scenarios.profile import Constant, Profile

__all__ = ["Probed"]

FIRST, ENOUGH, SELDOM = 4, 12, 4


class Probed:
    """Probes of several workloads, each beside the ``calibrated`` profile of its workload.

    rows  what they said, as JSON has it: cell, round, workload, constants that were measured anew
    """

    def __init__(self, calibrated: Mapping[str, Profile]) -> None:
        self.calibrated = calibrated
        self.rows: list[dict[str, Any]] = []

    def wanted(self, workload: str, native: bool) -> list[bool]:
        """The probes to be made before the next round: for each whether it is also of what scatters.

        ``native`` says whether the round's steps are: nothing else scatters.
        """
        if not native:
            return [False]
        own = [row for row in self.rows if row["workload"] == workload]
        often = sum(row.get("small", True) for row in own)
        rounds = len({(row["cell"], row["round"]) for row in own})
        return [True] * max(1, FIRST - often) if often < ENOUGH else [rounds % SELDOM == 0]

    def add(self, cell: int, turn: int, workload: str, fresh: Profile, small: bool = True) -> Profile:
        """Keep what ``fresh`` says anew; ``fresh`` with what scatters taken from all probes so far.

        ``small`` says whether what scatters was probed, too.
        """
        base = self.calibrated[workload]
        said = {name: asdict(one) for name, one in anew(fresh, base).items()}
        before = [row["constants"] for row in self.rows if row["workload"] == workload]
        self.rows.append(
            {"cell": cell, "round": turn, "workload": workload, "small": small, "constants": said}
        )
        return pooled([base, *(self._profile(workload, own) for own in before), fresh])

    def steadiness(self) -> dict[str, dict[str, float]]:
        """How steady the machine was, by workload: seconds of a step alone, and how much its probes scatter.

        Of workloads that were probed three times or more; ``scatter`` as ``analysis.repetitions`` has it.
        """
        probed: dict[str, list[float]] = {}
        for row in self.rows:
            if "step_time.mean" in row["constants"]:
                probed.setdefault(row["workload"], []).append(row["constants"]["step_time.mean"]["value"])
        found = {}
        for workload, seconds in probed.items():
            usual, share = scatter(seconds)
            found[workload] = {
                "median": usual, "low": min(seconds), "high": max(seconds), "scatter": share,
                "probes": len(seconds),
            }  # fmt: skip
        return {workload: own for workload, own in found.items() if own["probes"] >= 3}

    def restore(self, rows: Iterable[dict[str, Any]], finished: Callable[[int, int], bool]) -> None:
        """Take over ``rows`` of an earlier check as far as their round, (cell, round), is ``finished``."""
        self.rows = [row for row in rows if finished(row["cell"], row["round"])]

    def _profile(self, workload: str, said: Mapping[str, Any]) -> Profile:
        """The calibrated profile with the constants that one probe measured anew."""
        base = self.calibrated[workload]
        measured = {name: Constant(**one) for name, one in said.items()}
        return replace(base, constants={**base.constants, **measured})
