"""Plan parameter servers: how many, where, sharded how; swept by simulation, and one recommended.

Rules this module obeys:

* All runs have the same scenario and seed; nothing differs but ``cluster.servers``. Numerics and spans
  are off: they change no times.
* What the scenario refuses (more shards than layers, no machine for a server) and what fails is a row
  that says so. Input that is wrong for all rows is refused before the first run.
* What is finished is kept, also when the sweep is stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aladdin import api, pool
from core.sharding import SHARDINGS
from scenarios import Scenario, ScenarioError
from scenarios.overrides import given

__all__ = ["PLACEMENTS", "ServerPlan", "plan_servers"]

PLACEMENTS = ("dedicated", "beside", "spread")

MOST = 16
"""Servers that a sweep tries at most, where it is not told."""

BYTES = 4
"""Of a parameter, float32."""


@dataclass(frozen=True)
class ServerPlan:
    """What was found.

    scenario   the scenario (its own servers are of no consequence)
    rows       a mapping per number, placement and sharding (``analysis.servers.Row``, and ``path``, the
               run directory)
    chosen     index of the recommended row; None if no run is done
    reasons    why, in sentences
    path       the directory that was written, or None; pictures: files drawn into it
    notes      what went wrong beside the runs
    complete   False if it was stopped
    """

    scenario: Scenario
    rows: list[dict[str, Any]] = field(repr=False)
    chosen: int | None
    reasons: list[str]
    path: Path | None = None
    pictures: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = True

    @property
    def recommended(self) -> dict[str, Any] | None:
        """The row to choose; None if no run is done."""
        return None if self.chosen is None else self.rows[self.chosen]

    @property
    def title(self) -> str:
        """Scenario, algorithm and workers in a line."""
        from analysis.names import count, label

        one = self.scenario
        return f"{one.name}: {label(one.algorithm.name)}, {count(one.cluster.workers, 'worker')}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: everything but the runs' tables, which are in the run directories."""
        from analysis.store import plain

        tree: dict[str, Any] = plain({
            "scenario": self.scenario.to_dict(), "rows": self.rows, "recommended": self.recommended,
            "reasons": self.reasons, "complete": self.complete, "flags": self.notes, "path": self.path,
            "pictures": self.pictures,
        })  # fmt: skip
        return tree


def plan_servers(
    scenario: api.Source,
    *,
    counts: Sequence[int] | str | None = None,
    placements: Sequence[str] | str | None = None,
    shardings: Sequence[str] | str = SHARDINGS,
    algorithm: str | None = None,
    tolerance: float = 0.02,
    overrides: Mapping[str, Any] | None = None,
    profile: Any = None,
    out: str | Path | None = None,
    jobs: int | None = None,
    on_progress: Any = None,
) -> ServerPlan:
    """Simulate ``scenario`` with every number, placement and sharding of servers, and recommend one.

    counts       numbers of servers, a list or a text such as ``"1,2,4"``; default: doubled from 1 up to the
                 number of workers, at most 16
    placements   likewise, out of ``dedicated``, ``beside`` and ``spread``; default: the first two, and the
                 third where the cluster has racks or sites. shardings: out of ``memory`` and ``layer``
    algorithm    one with servers; default: the scenario's own
    tolerance    share of the best throughput that is not worth a further server
    overrides, profile  as in ``aladdin.simulate``
    out          new directory for a run directory per row, ``servers.json`` and ``servers.png``
    jobs         processes; default: as many as there are cores. The number changes nothing
    on_progress  called now and then with the runs done (shares included) and the runs in all

    Stopped by Ctrl-C it writes what is finished to ``out`` and raises ``KeyboardInterrupt``, whose ``plan``
    holds it and whose ``path`` says where. Raises ``ScenarioError`` for bad input, for an algorithm without
    servers, and where the scenario refuses all rows.
    """
    fixed = {"run.numerics": False, "run.evaluate_every": 0, "run.spans": False}
    base = api.load(scenario, algorithm=algorithm, overrides={**given(overrides), **fixed})
    _check(base, tolerance)
    numbers = _numbers(counts, base.cluster.workers)
    if placements is None:
        placements = PLACEMENTS if base.cluster.topology is not None else PLACEMENTS[:2]
    wanted = [
        (number, placement, sharding)
        for placement in _names(placements, PLACEMENTS, "placements")
        for sharding in _names(shardings, SHARDINGS, "shardings")
        for number in numbers
    ]
    processes = pool.size(jobs, [base])
    tree, path = pool.profile(profile), _reserved(out)
    rows, jobs_ = _begun(base, wanted, path, tree)
    for job in jobs_.values() if path else ():  # taken: nobody else writes there from now on
        Path(job["path"]).mkdir(parents=True, exist_ok=True)
    return _performed(base, rows, jobs_, processes, tolerance, path, on_progress)


def _begun(base: Scenario, wanted: Sequence[tuple[int, str, str]], path: Path | None, profile: Any
           ) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:  # fmt: skip
    """The rows, refused ones complete, and the jobs of the others by their rows' index."""
    from analysis.servers import row

    rows: list[dict[str, Any]] = []
    jobs, refusal = {}, None
    for index, (number, placement, sharding) in enumerate(wanted):
        servers = {"count": number, "placement": placement, "sharding": sharding}
        one = {"servers": number, "placement": placement, "sharding": sharding, "outcome": "stopped",
               "message": "", "largest_shard": None, **row(None), "path": None}  # fmt: skip
        rows.append(one)
        try:
            chosen = base.override({f"cluster.servers.{name}": value for name, value in servers.items()})
        except ScenarioError as error:
            one |= {"outcome": "refused", "message": str(error)}
            refusal = refusal or error
            continue
        one["largest_shard"] = _largest(chosen)
        folder = str(path / f"{placement}-{sharding}-{number}") if path else None
        jobs[index] = {"scenario": chosen.to_dict(), "profile": profile, "path": folder}
    if refusal is not None and not jobs:
        raise refusal
    return rows, jobs


def _largest(scenario: Scenario) -> dict[str, float]:
    """Bytes and share of the model of the largest shard."""
    from scenarios.plan import plan

    made = plan(scenario)
    most = max(shard.size for shard in made.shards)
    return {"bytes": float(BYTES * most), "share": most / made.parameters}


def _performed(base: Scenario, rows: list[dict[str, Any]], jobs: dict[int, dict[str, Any]], processes: int,
               tolerance: float, path: Path | None, on_progress: Any) -> ServerPlan:  # fmt: skip
    """Perform all jobs, fill in their rows and finish, whether or not it is stopped."""
    from analysis.servers import row

    order, shares = list(jobs), [0.0] * len(jobs)

    def advance(index: int, share: float) -> None:
        shares[index] = share
        if on_progress is not None:
            on_progress(sum(shares), len(jobs))

    try:
        for index, outcome in pool.outcomes([jobs[i] for i in order], processes, advance):
            one, summary = rows[order[index]], outcome["summary"]
            one |= {name: outcome[name] for name in ("outcome", "message", "path")} | row(summary)
            one["link"] = _named(one["link"], jobs[order[index]]["scenario"])
            advance(index, 1.0)
    except KeyboardInterrupt as stop:
        found = _finished(base, rows, tolerance, path, complete=False)
        stop.plan = found  # type: ignore[attr-defined]
        if found.path is not None and found.chosen is not None:
            stop.path = found.path  # type: ignore[attr-defined]
        raise
    return _finished(base, rows, tolerance, path, complete=True)


def _named(link: Mapping[str, Any] | None, tree: Mapping[str, Any]) -> dict[str, Any] | None:
    """``link`` with the ``name`` of its machine."""
    if link is None or "name" in link:
        return None if link is None else dict(link)
    return {**link, "name": Scenario.from_dict(tree).cluster.machines[link["machine"]].name}


def _finished(base: Scenario, rows: list[dict[str, Any]], tolerance: float, path: Path | None,
              complete: bool) -> ServerPlan:  # fmt: skip
    """The plan of what there is; its document and picture written if there is a directory."""
    from analysis import servers
    from analysis.plots import save

    found = ServerPlan(base, rows, *servers.recommend(rows, tolerance), path=path, complete=complete)
    for folder in path.iterdir() if path is not None and path.is_dir() else ():
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    if path is None or found.chosen is None:
        return found
    path.mkdir(parents=True, exist_ok=True)
    try:
        picture = servers.figure(rows, found.chosen, found.title)
        found.pictures.append(save(picture, path / "servers.png"))
    except ScenarioError as error:
        found.notes.append(f"no picture: {error}")
    document = json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n"
    (path / "servers.json").write_text(document, encoding="utf-8")
    return found


def _check(base: Scenario, tolerance: float) -> None:
    """Raise ``ScenarioError`` for an algorithm without servers, and for a tolerance that is no share."""
    from core.algorithms import ALGORITHMS

    if not base.algorithm.make().centralized:
        names = [name for name, kind in ALGORITHMS.items() if getattr(kind, "centralized", False)]
        valid = f"an algorithm with parameter servers: {', '.join(names)}"
        raise ScenarioError("algorithm.name", base.algorithm.name, valid)
    number = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if not number or not 0 <= tolerance < 1:
        raise ScenarioError("tolerance", tolerance, "a share of at least 0 and below 1, such as 0.02")


def _numbers(counts: Sequence[int] | str | None, workers: int) -> list[int]:
    """Numbers of servers, each once, in rising order."""
    from scenarios.cluster import MOST as LARGEST

    if counts is None:
        return [2**k for k in range(min(workers, MOST).bit_length())]
    valid = f"whole numbers between 1 and {LARGEST}, such as 1,2,4"
    parts: Sequence[Any] = counts.split(",") if isinstance(counts, str) else counts
    try:
        found = [int(part) for part in parts]
    except (TypeError, ValueError, OverflowError):
        raise ScenarioError("counts", counts, valid) from None
    exact = all(isinstance(part, str) or (part == int(part) and part is not True) for part in parts)
    if not found or not exact or not all(1 <= number <= LARGEST for number in found):
        raise ScenarioError("counts", counts, valid)
    return sorted(set(found))


def _names(given: Sequence[str] | str, known: Sequence[str], what: str) -> list[str]:
    """Names out of a list or a text with commas, each once, all of them ``known``."""
    parts = given.split(",") if isinstance(given, str) else given
    names = [part.strip() for part in parts if isinstance(part, str)] if isinstance(parts, Sequence) else []
    if not names or len(names) < len(parts) or not set(names) <= set(known):
        raise ScenarioError(what, given, f"some of {', '.join(known)}, such as {','.join(known[:2])}")
    return list(dict.fromkeys(names))


def _reserved(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    from analysis.store import reserve

    return reserve(out)
