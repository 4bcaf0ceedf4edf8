"""Cases: a bundled scenario with changes, run on several seeds; and what came of them.

Rules this module obeys:

* A case is what a user can type: its ``command`` runs it.
* Every case runs once per seed, however many tables it stands in.
* A run that fails is an error that names the case: no table is made of what is missing.
* Finished runs are in the caller's hands, and kept if there is a place for them, however the rest ends.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aladdin import pool
from aladdin.paper.keeping import Kept
from scenarios import Scenario, load

__all__ = ["Case", "Results", "Unfinished", "case", "perform"]


class Unfinished(Exception):
    """A run of the report failed; says which one and how. ``path``: where finished ones are kept, or None."""

    path: Any = None


@dataclass(frozen=True)
class Case:
    """``scenario`` (a bundled name) with ``changes``: (path, value as JSON) pairs."""

    scenario: str
    changes: tuple[tuple[str, str], ...] = ()

    def load(self, seed: int = 0) -> Scenario:
        """The scenario itself."""
        return load(self.scenario, {**dict(self.values), "run.seed": seed})

    @property
    def values(self) -> list[tuple[str, Any]]:
        """The changes as values."""
        return [(path, json.loads(value)) for path, value in self.changes]

    @property
    def command(self) -> str:
        """What runs it from a shell."""
        sets = "".join(f" -s {shlex.quote(f'{path}={_flat(value)}')}" for path, value in self.values)
        return f"aladdin simulate {self.scenario}{sets}"


def case(scenario: str, changes: Mapping[str, Any] | None = None) -> Case:
    """The case of ``scenario`` with fields changed by path."""
    return Case(scenario, tuple((path, json.dumps(value)) for path, value in (changes or {}).items()))


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Results:
    """Summaries (and curves) of all cases and seeds."""

    seeds: Sequence[int]
    runs: Mapping[tuple[Case, int], Mapping[str, Any]]

    def each(self, one: Case, *path: str) -> list[Any]:
        """The figure at ``path`` of the summary, for every seed."""
        found = []
        for seed in self.seeds:
            value: Any = self.runs[one, seed]["summary"]
            for name in path:
                value = None if value is None else value.get(name)
            found.append(value)
        return found

    def curves(self, one: Case) -> list[Mapping[str, Sequence[float]]]:
        """The learning curves, for every seed."""
        return [self.runs[one, seed]["curves"] for seed in self.seeds]

    def estimate(self, one: Case, *path: str, by: Callable[[Any], float] | None = None) -> dict[str, Any]:
        """Mean and 95 % interval over the seeds of the figure at ``path``, put through ``by``."""
        from analysis.seeds import estimate

        values = self.each(one, *path)
        found = estimate([by(value) for value in values] if by else values)
        if found is None:
            raise Unfinished(f"{one.command}: no {'.'.join(path)}")
        return found


def perform(
    cases: Iterable[Case], seeds: Sequence[int], processes: int,
    on_progress: Callable[[float, int], None] | None = None,
    kept: Kept | None = None, found: dict[tuple[Case, int], Mapping[str, Any]] | None = None,
) -> Results:  # fmt: skip
    """Run all cases on all seeds in so many processes; raises ``Unfinished`` where one fails.

    Runs that are ``kept`` are taken as they are, others are kept there as they finish; ``found`` is filled.
    """
    found = {} if found is None else found
    trees = {one: one.load().to_dict() for one in dict.fromkeys(cases)}
    wanted: list[tuple[Case, int]] = []
    jobs: list[dict[str, Any]] = []
    for one, tree in trees.items():
        for seed in seeds:
            full = {**tree, "run": {**tree["run"], "seed": seed}}
            known = None if kept is None else kept.get(full)
            if known is not None:
                found[one, seed] = known
                continue
            wanted.append((one, seed))
            jobs.append({"scenario": full, "profile": None, "path": None})
    total = len(trees) * len(seeds)
    for index, outcome in pool.outcomes(jobs, processes):
        one, seed = wanted[index]
        if outcome["outcome"] != "done":
            raise Unfinished(f"{one.command} -s run.seed={seed}: {outcome['outcome']}: {outcome['message']}")
        found[one, seed] = outcome
        if kept is not None:
            kept.put(jobs[index]["scenario"], outcome)
        if on_progress is not None:
            on_progress(len(found), total)
    return Results(tuple(seeds), found)
