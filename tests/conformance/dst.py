"""Deterministic simulation of faults: run a trial and hold it to everything that was promised.

Rules this module obeys:

* A run in which nobody comes is held to its algorithm's contract (``tests.conformance.contracts``), all along
  and at the end. In every run: gradients computed = applied + pending + lost, by worker; none applied twice;
  only who crashed, or whose server forgot, loses any; every second is booked once; everybody ends.
* A broken promise is an ``AssertionError``, a ``Deadlock`` or whatever else a driver raises. A server's
  silence that was too long, and no shorter one, ends a run as it should (``ServerLost``). A run
  without end is given up.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from core.record import EVENTS, PARTS, Record
from scenarios import Scenario
from scenarios.faults import SILENT, too_long
from scenarios.plan import plan
from sim.errors import ServerLost
from tests.conformance.audit import Audit
from tests.conformance.lives import EXACT, Endless, Marks, Watched
from tests.conformance.tags import Tags
from tests.conformance.trials import Trial, several_lives

__all__ = ["Outcome", "play"]

SINGLE = ("asp", "ssp", "dssp")
"""Algorithms that apply every gradient by itself, with eta / n."""

NO_SUMS = ("diloco", "sgp")
"""Those whose parameters are no plain sums of gradients."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What there was to see: faults that struck, by kind; steps; ``end``: over | server lost | endless."""

    faults: Counter[str]
    steps: int
    end: str = "over"


class _Tags(Tags):
    """Tags whose run is given up where there are more steps than tags."""

    def __call__(self, params: np.ndarray, rank: int, step: int) -> np.ndarray:
        if step >= self.steps:
            raise Endless
        return super().__call__(params, rank, step)


def play(trial: Trial) -> Outcome:
    """Run ``trial``; raises whatever shows that a promise was broken."""
    scenario = Scenario.from_dict(trial.scenario)
    made = plan(scenario)
    workers, slices, most = trial.sizes
    audit = tags = None
    if not several_lives(trial.scenario["faults"]):
        gradients: Any = _Tags(workers, most, slices)
        tags = gradients
        contract = trial.contract
        audit = Audit(made.algorithm, lambda audit: contract.during(audit, gradients))
        made = dataclasses.replace(made, algorithm=audit)  # type: ignore[arg-type]
    else:
        gradients = Marks(workers, slices, most)
    driver = Watched(made, trial, gradients)
    if audit is not None:
        audit.crashed = lambda: [host.id for host in driver.hosts if host.crashed]
    try:
        record = driver.run()
    except Endless:
        return Outcome(Counter(), 0, "endless")
    except ServerLost as lost:
        if not _may_lose_a_server(scenario):
            raise AssertionError(f"{lost}, but no server may be lost") from lost
        unfinished: Record = lost.record
        return Outcome(_struck(driver, unfinished), int(unfinished.nodes["steps"].sum()), "server lost")
    if audit is not None and tags is not None:
        trial.contract.after(audit, tags)
    else:
        _marked_once(driver, gradients)
    _accounted(driver, record)
    if scenario.algorithm.name == "gosgd":
        held = record.nodes["weight"].sum()
        assert held <= driver.created + EXACT, f"workers hold {held} of all weight, {driver.created}"
    return Outcome(_struck(driver, record), int(record.nodes["steps"].sum()))


def _may_lose_a_server(scenario: Scenario) -> bool:
    """Whether any server dies for good, or may be silent for too long by all its faults together."""
    silent: dict[int, float] = defaultdict(float)
    for fault in scenario.faults:
        if fault.servers and fault.back is None:
            return True
        for server in fault.servers if fault.kind in SILENT else ():
            silent[server] += fault.back
    return any(too_long(seconds, scenario.run.heartbeat_timeout) for seconds in silent.values())


def _struck(driver: Watched, record: Record) -> Counter[str]:
    found: Counter[str] = Counter()
    for node, event in zip(record.events["node"].tolist(), record.events["event"].tolist(), strict=True):
        kind = EVENTS[event]
        if kind in ("crash", "leave", "join", "freeze", "cut"):
            found[f"server {kind}" if node >= driver.workers else kind] += 1
    return found


def _accounted(driver: Watched, record: Record) -> None:
    """Time, steps and gradients add up, and only who may has lost any."""
    nodes = record.nodes
    total = sum(nodes[part] for part in PARTS)
    np.testing.assert_allclose(total, record.duration, rtol=1e-9, atol=1e-9)
    rows = sum(record.steps[part] for part in PARTS[:-1])
    np.testing.assert_allclose(rows, record.steps["end"] - record.steps["start"], rtol=1e-9, atol=1e-9)
    assert (record.gradients["staleness"] > -EXACT).all(), "a gradient from the future was applied"
    budget = driver.plan.scenario.run.steps
    died = set(record.events["node"][record.events["event"] == EVENTS.index("crash")].tolist())
    for host in driver.hosts[: driver.workers]:
        if budget and not (host.absent or host.going):
            assert host.node.step >= budget, f"worker {host.id} made {host.node.step} of {budget} steps"
        if not driver.plan.accounts:
            continue
        i = host.id
        fates = {fate: int(nodes[fate][i]) for fate in ("applied", "pending", "lost")}
        assert sum(fates.values()) == nodes["steps"][i], f"worker {i}: {nodes['steps'][i]} steps, {fates}"
        if i not in died:
            excused = driver.excused[i]
            assert fates["lost"] <= excused, f"worker {i} lost {fates['lost']}, of which {excused} by servers"


def _marked_once(driver: Watched, marks: Marks) -> None:
    """No gradient is in any parameters twice, and servers hold what their ledgers say."""
    name = driver.plan.algorithm.name
    if driver.plan.accounts:
        for host in driver.hosts[driver.workers :]:
            for rank, shares in enumerate(marks.shares(host.node.params)[0]):
                there, who = shares[np.abs(shares) > EXACT], f"server {host.id}, gradients of worker {rank}"
                if name in SINGLE:
                    assert np.allclose(there, 1 / driver.workers, rtol=1e-9), f"{who}: applied as {there}"
                assert (there <= 1 + EXACT).all(), f"{who}: applied as {there}"
                ledger = host.node.ledger.applied.get(rank, 0)
                assert len(there) == ledger, f"{who}: {len(there)} in the parameters, {ledger} in the ledger"
    if name == "gosgd":
        crashes = any(host.crashed for host in driver.hosts) or driver.former
        short = driver.created - driver.weight  # what a crash struck while it was being sent is nowhere
        assert -EXACT <= short <= (driver.created if crashes else EXACT), f"{short} of all weight is missing"
    if name not in NO_SUMS:
        for host in driver.hosts:
            most = marks.shares(host.node.params).max(initial=0)
            assert most <= 1 + EXACT, f"node {host.id} holds a gradient to {most!r}"
