"""Random clusters for the simulator: everything about a run follows from the algorithm's name and a seed.

    python -m tests.conformance.clusters NAME SEED     runs that cluster again and says what it was

Step times that differ and vary, slow links, machines that are shared, admissions, windows, inboxes,
tensor work that takes time, budgets of three kinds, workers that slow down and workers that die.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.collectives import ALGORITHMS
from core.record import PARTS, Record
from scenarios.plan import plan
from scenarios.schema import Scenario
from sim.driver import Driver
from tests.conformance.audit import Audit
from tests.conformance.contracts import CONTRACTS
from tests.conformance.schedules import replayable
from tests.conformance.tags import Tags

__all__ = ["Cluster", "draw", "run", "seeded"]

STEP = 0.05
"""Mean step time, seconds; a run has some ten of them."""


@dataclass(frozen=True)
class Cluster:
    """A scenario, and who dies when: worker -> seconds."""

    scenario: Scenario
    crashes: dict[int, float]


def draw(name: str, seed: int) -> Cluster:
    """The cluster of ``seed``."""
    rng = np.random.default_rng([seed, *name.encode(), 1])

    def of(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    contract = CONTRACTS[name]
    workers = int(rng.integers(contract.fewest, 7))
    servers = int(rng.integers(1, 4))
    steps = int(rng.integers(1, 7))
    budget = of({"steps": steps}, {"steps": steps}, {"samples": steps * workers}, {"seconds": steps * STEP})
    size = Tags(workers, _most(budget), servers).size * 8
    slowdowns = of(
        [],
        [{"kind": "fixed", "ranks": [int(rng.integers(workers))], "factor": of(2, 10, 100)}],
        [{"kind": "transient", "factor": 20, "mean_on": 2 * STEP, "mean_off": 2 * STEP}],
        [{"kind": "scheduled", "ranks": [0], "intervals": [[STEP, 4 * STEP, 30]]}],
    )
    work = {"apply": 1e-3, "mix": 2e-3, "accumulate": 1e-3, "snapshot": 1e-3}
    crashes = rng.permutation(workers)[: int(rng.integers(workers))] if rng.random() < 0.4 else ()
    tree = {
        "name": f"random {seed}",
        "cluster": {
            "workers": workers,
            "workers_per_machine": of(1, 1, 2),
            "bandwidth": size / STEP * float(10 ** rng.uniform(-0.7, 2)),
            "latency": of(0, 1e-4, STEP),
            "servers": {"count": servers, "placement": of("dedicated", "beside")},
            "network": {
                "admission": of("fifo", "fair", 2),
                "window": of(1, 1, 2, "unlimited"),
                "inbox": of(1, 2, 2, "unlimited"),
                "overhead": of(0, 1e-4),
                "collective": of("messages", "messages", "native"),
                "allreduce": ALGORITHMS[seed % len(ALGORITHMS)],
            },
            "compute": of(
                {"model": "constant", "mean": STEP},
                {"model": "lognormal", "mean": STEP, "spread": 0.8},
                {"model": "shifted_exponential", "mean": STEP, "spread": 1.0},
            ),
            "slowdowns": slowdowns,
            "tensor_seconds": of({}, work),
        },
        "workload": {"parameters": size // 8, "batch": 1, "data": "synthetic", "samples": 1},
        "algorithm": {
            "name": name, "options": contract.options(rng, workers),
            "lr": 1.0, "lr_scaling": "none", "momentum": 0.0,
        },
        "run": {"seed": seed, **budget},
    }  # fmt: skip
    return Cluster(
        Scenario.from_dict(tree), {int(victim): float(rng.uniform(0, 8 * STEP)) for victim in crashes}
    )


def _most(budget: dict[str, Any]) -> int:
    """More steps than any worker makes under that budget."""
    return int(budget.get("steps") or budget.get("samples") or 50 * budget["seconds"] / STEP)


def run(cluster: Cluster) -> tuple[Record, Audit]:
    """Run it, checking the algorithm's contract all along and at the end; raises ``AssertionError``."""
    scenario = cluster.scenario
    contract = CONTRACTS[scenario.algorithm.name]
    made = plan(scenario)
    slices = scenario.cluster.servers.count
    tags = Tags(made.workers, made.parameters // (slices * made.workers), slices)
    audit = Audit(made.algorithm, lambda audit: contract.during(audit, tags))
    settled = not (scenario.cluster.tensor_seconds and scenario.algorithm.name == "adpsgd")
    gradients = _Asked(tags, audit) if settled else tags
    driver = Driver(dataclasses.replace(made, algorithm=audit), gradients=gradients)  # type: ignore[arg-type]
    audit.crashed = lambda: [host.id for host in driver.hosts if host.crashed]
    for worker, at in cluster.crashes.items():
        driver.crash(worker, at)
    record = driver.run()
    contract.after(audit, tags)
    _accounted(record, audit, scenario)
    _never_waits(record, audit)
    return record, audit


class _Asked:
    """Tagged gradients that are only given at the parameters that their step started with.

    These are known where a step begins as soon as its program asks for it: unless tensor work has to end
    first and a companion changes them meanwhile.
    """

    def __init__(self, tags: Tags, audit: Audit) -> None:
        self.initial, self._tags, self._audit = tags.initial, tags, audit

    def __call__(self, params: np.ndarray, rank: int, step: int) -> np.ndarray:
        start = next(s for s in reversed(self._audit.steps) if (s.rank, s.step) == (rank, step))
        assert np.array_equal(params, start.params), f"step {step} of worker {rank}: parameters have changed"
        return self._tags(params, rank, step)


def _accounted(record: Record, audit: Audit, scenario: Scenario) -> None:
    """Every second is booked once, every survivor has made its steps."""
    total = sum(record.nodes[part] for part in PARTS)
    np.testing.assert_allclose(total, record.duration, rtol=1e-9, atol=1e-9)
    rows = sum(record.steps[part] for part in PARTS[:-1])
    np.testing.assert_allclose(rows, record.steps["end"] - record.steps["start"], rtol=1e-9, atol=1e-9)
    survivors = [node for node in audit.workers if node.id not in audit.died]
    if scenario.run.steps:
        assert all(node.step == scenario.run.steps for node in survivors)
    elif scenario.run.samples:
        begun = sum(node.step for node in audit.workers)
        assert begun <= scenario.run.samples
        assert begun + len(audit.died) >= scenario.run.samples or not survivors


def _never_waits(record: Record, audit: Audit) -> None:
    """Under ``coalesce`` an ALADDIN worker neither waits nor sends, but for its last flush."""
    if getattr(audit.algorithm, "on_busy", "") != "coalesce" or not audit.algorithm.centralized:
        return
    last = {node.id: node.step - 1 for node in audit.workers}
    rows = record.steps
    early = np.array([step < last[node] for node, step in zip(rows["node"], rows["step"], strict=True)], bool)
    for part in ("send", "wait", "receive"):
        assert not rows[part][early].any(), f"{part}: {rows[part][early].max()} s"


def seeded(name: str, seed: int) -> tuple[Record, Audit]:
    """Run the cluster of ``seed``."""
    with replayable(name, seed, "clusters"):
        return run(draw(name, seed))


if __name__ == "__main__":
    print(draw(sys.argv[1], int(sys.argv[2])))
    print(
        f"kept its contract in {run(draw(sys.argv[1], int(sys.argv[2])))[0].duration:.6g} simulated seconds"
    )
