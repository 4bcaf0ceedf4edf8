"""Holds the simulator against an oracle file: one row per case with its worst relative error.

Rules this module obeys:

* ASP, BSP, ALADDIN and ring run as node programs, through the same driver as every simulation;
  transfers and gossip run on the network directly (gossip starts the reverse flow at the same
  instant, which no message exchange can do). So does a ring whose NICs differ, unless it is eager:
  there it matters that a transfer waits until its receiver is ready.
* Fair admission, unlimited inboxes, Phantom tensors; only servers pay for tensor work: ``apply`` A,
  ``accumulate`` Aacc seconds per call.
* Messages are whole bytes per flow, shard or chunk, rounded down, as the oracle has them. A Phantom has
  four bytes per element, so bytes stand for elements and all rates are four times as high; that is exact.
* All expected times, and rates made of them, are compared up to ``compare_until_s`` and the comparable
  iterations; ``min_ps_arrival_gap_s`` is not: it says how close to a tie the oracle's run came. ALADDIN's
  iteration k ends when its gradient is seen to be delivered: with a window of 1 at the end of step
  k+1, for the last at its delivery. Counts, of iterations, messages, pushes and blends, must agree
  exactly, or where two moments may be one (``TIE``) with either order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import frexp, inf
from pathlib import Path
from typing import Any

import numpy as np

from core.algorithms import make
from core.node import Node
from core.optimizer import Schedule
from core.record import Ledger, Record
from core.sharding import Shard
from core.tensors import Phantom, Tensors
from scenarios.errors import ScenarioError
from scenarios.plan import Plan
from scenarios.schema import (
    AlgorithmChoice,
    Cluster,
    Machine,
    Network,
    Run,
    Scenario,
    Servers,
    StepTime,
    Workload,
)  # fmt: skip
from sim.direct import gossip, rendezvous, transfers
from sim.driver import Driver
from sim.errors import Deadlock
from sim.network import Transfer
from sim.oracle import WIDTH, NetCase, RunCase, read
from sim.programs import Metered

__all__ = ["Row", "verify"]

EXACT, CHAOTIC = 1e-8, 1e-6
TOLERANCES = {
    "network": EXACT,
    "bsp": EXACT,
    "aladdin": EXACT,
    "ring": EXACT,
    "asp": CHAOTIC,
    "gossip": CHAOTIC,
}

TIE = 1e-10
"""Relative difference up to which two moments of a run may be one and the same."""


@dataclass(frozen=True)
class Row:
    """One case. ``what`` names the value with the worst error, or the count that differs."""

    name: str
    kind: str
    worst_relative_error: float
    tolerance: float
    ok: bool
    what: str


def verify(path: str | Path, *, on_progress: Callable[[int, int], None] | None = None) -> list[Row]:
    """Run every case of an oracle file. Raises ``ScenarioError`` for a malformed one.

    on_progress  called with the cases done and those in all
    """
    rows: list[Row] = []
    cases = read(path)
    for case in cases:
        if on_progress is not None:
            on_progress(len(rows), len(cases))
        try:
            rows.append(_check(case))
        except ScenarioError as error:
            raise error.under(f"case {case.name}") from error
    return rows


def _check(case: NetCase | RunCase) -> Row:
    kind = "network" if isinstance(case, NetCase) else case.kind
    errors: Iterator[tuple[float, str]]
    if isinstance(case, NetCase):
        times = transfers(case)
        errors = (
            _error(t, e, f"completion[{i}]")
            for i, (t, e) in enumerate(zip(times, case.completion, strict=True))
        )
    else:
        try:
            errors = _compare(case, _outcome(case))
        except Deadlock as error:
            errors = iter([(inf, str(error).splitlines()[0])])
    worst, what = max(errors, default=(inf, "nothing to compare"), key=lambda e: e[0])
    tolerance = TOLERANCES[kind]
    return Row(case.name, kind, worst, tolerance, worst <= tolerance, what)


def _error(found: float, expected: float, what: str) -> tuple[float, str]:
    return abs(found - expected) / (abs(expected) or 1.0), what


@dataclass
class _Outcome:
    """What one run gave, in the oracle's terms.

    transfers  messages begun until the last worker ended; several answers where one began just then
    """

    iter_end: list[list[float]]
    finish: list[float]
    transfers: tuple[int, ...]
    pushes: list[int] | None = None
    blends: list[list[int]] | None = None


def _compare(case: RunCase, outcome: _Outcome) -> Iterator[tuple[float, str]]:
    """(relative error, what) of everything that is comparable."""
    expected, until = case.expected, case.until * (1 + 1e-9)
    whole = []
    for i, ends in enumerate(expected["iter_end"]):
        pairs = list(zip(outcome.iter_end[i], ends[: case.comparable[i]], strict=False))
        comparable = [(found, end) for found, end in pairs if min(found, end) <= until]
        whole.append(len(comparable) == case.iterations)
        for k, (found, end) in enumerate(comparable):
            yield _error(found, end, f"iter_end[{i}][{k}]")
    rates = [case.iterations / end if end else inf for end in outcome.finish]
    for name, values in (("finish", outcome.finish), ("throughput_iter_per_s", rates)):
        for i, value in enumerate(expected.get(name, ())):
            if whole[i]:
                yield _error(values[i], value, f"{name}[{i}]")
    for name, pick in (("makespan", max), ("t_first_finish", min)):
        if name in expected and (all(whole) or (pick is min and expected[name] <= until)):
            yield _error(pick(outcome.finish), expected[name], name)
    yield from _counts(case, outcome, whole)


def _counts(case: RunCase, outcome: _Outcome, whole: list[bool]) -> Iterator[tuple[float, str]]:
    expected, first = case.expected, min(outcome.finish)
    own = outcome.finish.index(first)
    counts = {"iterations_finished": [len(ends) for ends in outcome.iter_end]}
    most = {}  # where moments may be one and the same
    if first <= case.until * (1 + 2 * TIE):
        name = "iterations_finished_at_t_first"
        counts[name], most[name] = (
            [sum(end <= first * (1 + TIE * side * (i != own)) for end in ends)
             for i, ends in enumerate(outcome.iter_end)]
            for side in (-1, 1)
        )  # fmt: skip
    if outcome.pushes is not None and all(whole):
        counts["model_pushes_received"] = outcome.pushes
    for name, found in counts.items():
        for i, count in enumerate(expected.get(name, ())):
            if not found[i] <= count <= most.get(name, found)[i]:
                yield inf, f"{name}[{i}]: {found[i]}, expected {count:g}"
    moved = expected.get("n_transfers")
    if moved is not None and moved not in outcome.transfers and (outcome.pushes is None or all(whole)):
        yield inf, f"n_transfers: {outcome.transfers[0]}, expected {moved:g}"
    if outcome.blends is not None:
        for i, steps in enumerate(expected.get("blend_at_iter", ())):
            here = [k for k in outcome.blends[i] if k < case.comparable[i]]
            if here != [int(k) for k in steps if k < case.comparable[i]]:
                yield inf, f"blend_at_iter[{i}]: {here}, expected {[int(k) for k in steps]}"


def _outcome(case: RunCase) -> _Outcome:
    """Run the case in the way that its kind asks for."""
    alike = len(set(case.up)) == len(set(case.down)) == len(set(case.latency)) == 1
    if case.kind == "gossip":
        ends, moved = gossip(case)
    elif case.kind == "ring" and case.workers > 1 and not (alike or case.eager):
        ends, moved = rendezvous(case)
    else:
        return _programs(case)
    return _Outcome(ends, [own[-1] for own in ends], (moved,))


class _OraclePlan(Plan):
    """A plan whose servers' models may have another size than the gradients."""

    model: int

    def node(
        self,
        id: int,
        params: Any,
        tensors: Tensors,
        ledger: Ledger | None = None,
        live: set[int] | None = None,
    ) -> Node:
        return super().node(id, Phantom(self.model) if id in self.servers else params, tensors, ledger, live)


def _plan(case: RunCase) -> Plan:
    n, servers = case.workers, tuple(range(case.workers, case.workers + case.servers))
    machines = tuple(
        Machine(f"m{i}", up * WIDTH, down * WIDTH, latency)
        for i, (up, down, latency) in enumerate(zip(case.up, case.down, case.latency, strict=True))
    )
    mean = 2.0 ** max(0, frexp(max(case.compute))[1] - 19)  # exact, and all scales are below a million
    options = {"pi": case.pi, "on_busy": "wait", "push": "queue"} if case.kind == "aladdin" else {}
    choice = AlgorithmChoice(name="arsgd" if case.kind == "ring" else case.kind, options=options)
    cluster = Cluster(
        workers=n, machines=machines, placement=tuple(range(n)),
        compute=StepTime(mean=mean, scale=_positive([time / mean for time in case.compute])),
        network=Network(admission="fair", window=1, inbox=inf, collective="messages"),
        servers=Servers(max(case.servers, 1), "dedicated" if servers else (machines[0].name,)),
    )  # fmt: skip
    scenario = Scenario(
        case.name,
        cluster=cluster,
        algorithm=choice,
        run=Run(steps=case.iterations),
        workload=Workload(batch=1),
    )
    size = case.gradient
    shards = tuple(Shard(i, server, i * size, (i + 1) * size) for i, server in enumerate(servers))
    parameters = size * (case.servers or n)
    made = _OraclePlan(
        scenario, make(choice.name, options), (parameters,), parameters, shards, servers,
        tuple(range(len(machines))), Schedule(workers=n), 1,
    )  # fmt: skip
    object.__setattr__(made, "model", case.model)
    return made


def _positive(times: Iterable[float]) -> tuple[float, ...]:
    """Step times must be above zero; 1e-300 s does not move a clock."""
    return tuple(max(time, 1e-300) for time in times)


def _programs(case: RunCase) -> _Outcome:
    costs = {"apply": case.apply, "accumulate": case.accumulate}
    driver = Driver(_plan(case), tensors=lambda id: Metered({}, costs if id >= case.workers else {}))
    arrivals: list[tuple[float, int, int]] = []
    begun: list[float] = []

    def observe(transfer: Transfer) -> None:
        begun.append(transfer.queued)
        arrivals.append((driver.clock.now, transfer.pair.source.id, transfer.pair.target.id))

    driver.network.observer = observe
    record = driver.run()
    ends = _row_ends(record, case)
    finish = [own[-1] for own in ends]
    if case.kind != "aladdin":
        return _Outcome(ends, finish, (len(begun),))
    finish = [max(time for time, source, _ in arrivals if source == i) for i in range(case.workers)]
    ends = [[*own[1:], last] for own, last in zip(ends, finish, strict=True)]
    low, high = (sum(time < max(finish) * (1 + side * TIE) for time in begun) for side in (-1, 1))
    moved = tuple(range(low, high + 1))
    return _Outcome(ends, finish, moved, _pushes(case, arrivals, max(finish)), _blends(record, case))


def _row_ends(record: Record, case: RunCase) -> list[list[float]]:
    steps = record.steps
    return [steps["end"][steps["node"] == i].tolist() for i in range(case.workers)]


def _blends(record: Record, case: RunCase) -> list[list[int]]:
    steps = record.steps
    return [steps["step"][(steps["node"] == i) & (steps["blends"] > 0)].tolist() for i in range(case.workers)]


def _pushes(case: RunCase, arrivals: list[tuple[float, int, int]], until: float) -> list[int]:
    """Models complete on all shards that each worker has received by ``until``."""
    count = np.zeros((case.servers, case.workers), dtype=int)
    for time, source, target in arrivals:
        if target < case.workers and time <= until:
            count[source - case.workers, target] += 1
    return [int(c) for c in count.min(axis=0)]
