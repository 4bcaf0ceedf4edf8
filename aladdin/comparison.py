"""Compare algorithms on one scenario: how fast, how soon accurate, how stale, how much traffic.

Rules this module obeys:

* Every algorithm runs on the same scenario with the same seeds; nothing else differs but its options.
* An algorithm that the scenario refuses, a run that diverges or fails, is a row that says so. Input
  that is wrong for all of them is refused before the first run.
* What is finished is kept: each run directory is complete the moment it appears; table and pictures
  are written also when the comparison is stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from aladdin import api, pool
from scenarios import Scenario, ScenarioError
from scenarios.overrides import given

__all__ = ["Comparison", "compare"]

POINTS = 40
"""Evaluations that a curve gets where the scenario does not say how often to evaluate."""

MOST_SEEDS = 10_000

Progress = Callable[[float, int], None]
"""Called now and then with the runs done (shares of those under way included) and the runs in all."""


@dataclass(frozen=True)
class Comparison:
    """What was found.

    scenario   the scenario (its own algorithm is of no consequence)
    seeds      seeds of the runs of each algorithm
    accuracy   the mark that the times to accuracy are about, or None
    runs       a mapping per run: algorithm, seed, outcome (done, refused, diverged, failed), message,
               summary (``analysis.metrics.summary``), curves, path
    path       the directory that was written, or None
    pictures   files drawn into it
    notes      what went wrong beside the runs
    complete   False if it was stopped
    """

    scenario: Scenario
    seeds: tuple[int, ...]
    accuracy: float | None
    runs: list[dict[str, Any]] = field(repr=False)
    path: Path | None = None
    pictures: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = True

    @cached_property
    def statistics(self) -> list[dict[str, Any]]:
        """A mapping per algorithm: means over seeds with 95 % intervals (``analysis.seeds.condense``)."""
        from analysis.seeds import condense

        return condense(self.runs, self.accuracy)

    @property
    def title(self) -> str:
        """Scenario, workers and seeds in a line."""
        from analysis.names import count

        workers, seeds = count(self.scenario.cluster.workers, "worker"), count(len(self.seeds), "seed")
        made_up = self.scenario.run.numerics and self.scenario.workload.data == "synthetic"
        return f"{self.scenario.name}: {workers}, {seeds}{', made-up images' if made_up else ''}"

    @property
    def flags(self) -> list[str]:
        """Warnings that belong to the runs, each once, and the notes."""
        flags = [flag for run in self.runs if run["summary"] for flag in run["summary"]["flags"]]
        return list(dict.fromkeys([*flags, *self.notes]))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: everything but the curves, which are in the run directories."""
        from analysis.store import plain

        runs = [{name: value for name, value in run.items() if name != "curves"} for run in self.runs]
        tree: dict[str, Any] = plain({
            "scenario": self.scenario.to_dict(), "seeds": self.seeds, "accuracy": self.accuracy,
            "complete": self.complete, "algorithms": self.statistics, "runs": runs, "flags": self.flags,
            "path": self.path, "pictures": self.pictures,
        })  # fmt: skip
        return tree


def compare(
    scenario: api.Source,
    names: Sequence[str] | str = "all",
    *,
    seeds: int | Sequence[int] = 1,
    accuracy: float | None = None,
    numerics: bool | None = None,
    overrides: Mapping[str, Any] | None = None,
    profile: Any = None,
    out: str | Path | None = None,
    jobs: int | None = None,
    on_progress: Progress | None = None,
) -> Comparison:
    """Simulate ``scenario`` under several algorithms and seeds.

    names     a list, a text such as ``"asp,aladdin"``, or ``"all"``
    seeds     how many, counted up from the scenario's ``run.seed``; or the seeds themselves
    accuracy  also say when this share of the test set is first classified correctly (``metrics.reached``)
    numerics  evaluate real gradients in virtual time; default: as the scenario says, and whenever
              ``accuracy`` is given. With numerics and no ``run.evaluate_every`` a run is evaluated about
              40 times
    overrides, profile  as in ``aladdin.simulate``; an option goes to the algorithms that have it
    out       new directory for ``<algorithm>/seed-<k>`` (run directories), ``comparison.json``, pictures
    jobs      processes; default: as many as there are cores. The number changes nothing; with numerics,
              nothing beyond float rounding (several processes have one thread each for their tensors)

    Stopped by Ctrl-C it writes what is finished to ``out`` and raises ``KeyboardInterrupt``, whose
    ``comparison`` holds it and whose ``path`` says where. Raises ``ScenarioError`` for bad input.
    """
    overrides = _with_numerics(_checked(accuracy), numerics, given(overrides))
    chosen, refused = api.choices(scenario, names, overrides)
    base = _evaluated(chosen[0])
    numbers = _seeds(seeds, base.run.seed)
    profile = pool.profile(profile)
    processes = pool.size(jobs, chosen)
    path = _reserved(out)
    same: dict[str, Any] = {"run.evaluate_every": base.run.evaluate_every}
    if processes > 1 and len(chosen) * len(numbers) > 1 and not base.run.threads:
        same["run.threads"] = 1
    jobs_ = [
        {"algorithm": one.algorithm.name, "seed": seed,
         "scenario": one.override({**same, "run.seed": seed}).to_dict(), "profile": profile,
         "path": str(path / api.slug(one.algorithm.name) / f"seed-{seed}") if path else None}
        for seed in numbers for one in chosen
    ]  # fmt: skip
    runs = [
        {"algorithm": name, "seed": seed, "outcome": "refused", "message": str(error), "summary": None,
         "curves": None, "path": None}
        for name, error in refused.items() for seed in numbers
    ]  # fmt: skip
    made = path is not None and not path.exists()
    if path:  # taken: nobody else writes there from now on
        for one in chosen:
            (path / api.slug(one.algorithm.name)).mkdir(parents=True, exist_ok=True)
    return _performed(jobs_, processes, runs, on_progress, made=made, scenario=base, seeds=numbers,
                      accuracy=accuracy, path=path)  # fmt: skip


def _performed(jobs: list[dict[str, Any]], processes: int, runs: list[dict[str, Any]],
               on_progress: Progress | None, *, made: bool, **about: Any) -> Comparison:  # fmt: skip
    """Perform all jobs and finish the comparison, whether or not it is stopped.

    made  its directory is of its own making: without anything in it, it goes again
    """
    shares = [0.0] * len(jobs)
    about["order"] = list(dict.fromkeys(one["algorithm"] for one in [*runs, *jobs]))

    def advance(index: int, share: float) -> None:
        shares[index] = share
        if on_progress is not None:
            on_progress(sum(shares), len(jobs))

    try:
        for index, outcome in pool.outcomes(jobs, processes, advance):
            job = jobs[index]
            runs.append({"algorithm": job["algorithm"], "seed": job["seed"], **outcome,
                         "curves": _table(outcome["curves"])})  # fmt: skip
            advance(index, 1.0)
    except KeyboardInterrupt as stop:
        found = _finished(runs, complete=False, **about)
        stop.comparison = found  # type: ignore[attr-defined]
        if not _vacate(found.path, made):  # a run's directory precedes its outcome
            stop.path = found.path  # type: ignore[attr-defined]
        raise
    tried = runs[-len(jobs) :]
    if all(run["outcome"] == "refused" for run in tried):  # as it begins: wrong input, and nothing to compare
        _vacate(about["path"], made)
        raise ScenarioError(tried[0]["message"])
    return _finished(runs, complete=True, **about)


def _vacate(path: Path | None, made: bool) -> bool:
    """Take back the directories of runs that left nothing, and, if it was ``made``, the one above them.

    Returns whether nothing is there.
    """
    if path is None:
        return True
    for folder in [one for one in path.iterdir() if one.is_dir() and not any(one.iterdir())]:
        folder.rmdir()
    empty = not any(path.iterdir())
    if made and empty:
        path.rmdir()
    return empty


def _table(curves: Mapping[str, Sequence[float]] | None) -> dict[str, Any] | None:
    import numpy as np

    return None if curves is None else {name: np.array(values, float) for name, values in curves.items()}


def _finished(runs: list[dict[str, Any]], *, complete: bool, order: list[str], **about: Any) -> Comparison:
    """The comparison of what there is, algorithms in this order whichever finished first; its document
    and pictures written if there is a directory."""
    runs = sorted(runs, key=lambda run: (order.index(run["algorithm"]), run["seed"]))
    found = Comparison(runs=runs, complete=complete, **about)
    if found.path is None:
        return found
    from analysis import pictures

    found.path.mkdir(parents=True, exist_ok=True)
    _vacate(found.path, made=False)
    if not runs:
        return found
    try:
        found.pictures.extend(
            pictures.compare(found.statistics, runs, found.path, title=found.title, accuracy=found.accuracy)
        )
    except ScenarioError as error:
        found.notes.append(f"no pictures: {error}")
    document = json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n"
    (found.path / "comparison.json").write_text(document, encoding="utf-8")
    return found


def _checked(accuracy: float | None) -> float | None:
    number = isinstance(accuracy, int | float) and not isinstance(accuracy, bool)
    if accuracy is not None and not (number and 0 < accuracy <= 1):
        raise ScenarioError("accuracy", accuracy, "a share above 0 and at most 1, such as 0.95")
    return accuracy


def _with_numerics(accuracy: float | None, numerics: bool | None, overrides: dict[str, Any]
                   ) -> dict[str, Any]:  # fmt: skip
    """``overrides`` with numerics on or off as asked for; on where an accuracy is."""
    if accuracy is not None and numerics is False:
        raise ScenarioError("numerics", "off", f"on, to tell when {accuracy:g} is reached")
    if numerics is None and accuracy is not None:
        numerics = True
    return overrides if numerics is None else {**overrides, "run.numerics": numerics}


def _evaluated(scenario: Scenario) -> Scenario:
    """``scenario`` with a number of evaluations over its run, if it has a model and does not say."""
    run = scenario.run
    if not run.numerics or run.evaluate_every or not run.evaluate:
        return scenario
    from scenarios.plan import plan

    round_ = scenario.cluster.workers * scenario.workload.batch
    mean = scenario.cluster.compute.mean
    samples = run.samples or round_ * (run.steps or (run.seconds / mean if mean else 1.0))
    epochs = samples / plan(scenario).samples_per_epoch
    return scenario.override({"run.evaluate_every": float(f"{epochs / POINTS:.3g}")})


def _seeds(seeds: Any, first: int) -> tuple[int, ...]:
    """The seeds themselves; raises ``ScenarioError`` for none, for repetitions and for what is no seed."""
    whole = isinstance(seeds, int) and not isinstance(seeds, bool) and seeds <= MOST_SEEDS
    if isinstance(seeds, str) or not (whole or isinstance(seeds, Sequence)):
        raise ScenarioError("seeds", seeds, f"a number of seeds, at most {MOST_SEEDS}, or a list of seeds")
    numbers = tuple(range(first, first + seeds)) if isinstance(seeds, int) else tuple(seeds)
    good = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in numbers)
    if not numbers or not good or len(set(numbers)) < len(numbers):
        raise ScenarioError("seeds", seeds, "at least 1, or a list of different whole numbers from 0 up")
    return numbers


def _reserved(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    from analysis.store import reserve

    return reserve(out)
