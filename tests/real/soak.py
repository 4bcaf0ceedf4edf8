"""Soak: one real run after the other under random faults, each held to its promises, for so long.

    python -m tests.real.soak --seconds 180 --seed 0

draws algorithm, cluster and faults of every run by its number, so ``--first K`` repeats run K and goes on.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil

import real
from core.algorithms import ALGORITHMS
from core.record import EVENTS, Record
from scenarios.schema import Scenario
from tests.real.promises import must_reconcile
from tests.real.runs import tiny
from tests.real.striking import noting, restarts, striking

__all__ = ["drawn", "soak", "table"]

NAMES = [
    "asp", "bsp", "ssp", "aladdin", "easgd", "adpsgd", "gosgd", "dssp", "aladdin_l1", "aladdin_l2", "arsgd",
    "dpsgd", "sgp", "local_sgd", "diloco", "post_local_sgd",
]  # fmt: skip

COLUMNS = (
    "runs", "steps", *EVENTS, "killed", "restarted", "applied", "pending", "lost", "acknowledged", "dropped",
)  # fmt: skip
"""Killed: servers, by this program; restarted: as the records tell."""

LATE = 8.0
"""Seconds after its budget was met in which a run ends: silences, returns and restarts take 5 at most."""

SELDOM = 6.0
"""Seconds between two servers that this program kills, at most."""


def _faults(
    rng: np.random.Generator, name: str, workers: int, seconds: float, native: bool
) -> list[dict[str, Any]]:
    """Crashes and leaves by rate with returns, late starts, freezes, cuts; or some that go for good.

    native: all-reduces are, so they take in who comes, and nobody is cut off.
    """
    found: list[dict[str, Any]] = []
    algorithm = ALGORITHMS[name]
    if getattr(algorithm, "joins", False) and (native or not algorithm.collective):
        crash, leave = float(rng.uniform(0.05, 0.4)), float(rng.uniform(0.02, 0.1))
        back = float(rng.uniform(0.1, 1.0))
        away = {"join": 1 / back} if rng.random() < 0.3 else {"back": back}
        found.append({"kind": "churn", "crash": crash, "leave": leave, **away})
        if rng.random() < 0.3:
            found.append({"kind": "join", "ranks": [workers - 1], "at": float(rng.uniform(0.2, 2.0))})
    else:
        kind = str(rng.choice(["crash", "leave"]))
        found.append({"kind": kind, "ranks": [workers - 1], "at": float(rng.uniform(0.2, seconds / 2))})
    for rank in range(workers - 1):
        if rng.random() < 0.4:
            at, back = float(rng.uniform(0.2, seconds)), float(rng.uniform(0.05, 1.5))
            found.append({"kind": "freeze", "ranks": [rank], "at": at, "back": back})
    if not native and rng.random() < 0.4:
        at, back = float(rng.uniform(0.2, seconds)), float(rng.uniform(0.05, 1.5))
        found.append({"kind": "cut", "ranks": [0], "at": at, "back": back})
    if algorithm.centralized and rng.random() < 0.5:
        crash, back = float(rng.uniform(0.05, 0.2)), float(rng.uniform(0.1, 1.0))
        away = {"join": 1 / back} if rng.random() < 0.3 else {"back": back}
        every = {"checkpoint_every": float(rng.choice([0.0, 0.5]))}
        found.append({"kind": "churn", "servers": [0], "crash": crash, **away, **every})
    return found


def drawn(number: int, seed: int = 0) -> Scenario:
    """The scenario of run ``number``."""
    rng = np.random.default_rng([seed, number])
    name, workers, seconds = NAMES[number % len(NAMES)], int(rng.integers(2, 5)), float(rng.uniform(6, 12))
    links = str(rng.choice(["native", "paced"]))
    changes: dict[str, Any] = {
        "bandwidth": float(rng.choice([2e5, 1e6, 1e8])),
        "compute": {"model": "lognormal", "mean": "10 ms", "spread": 0.5},
        "network": {"window": int(rng.integers(1, 3)), "inbox": int(rng.integers(1, 4))},
    }
    run = {"seconds": seconds, "links": links, "heartbeat_timeout": "20 s", "seed": number}
    if ALGORITHMS[name].centralized:
        changes["servers"] = {"count": int(rng.integers(1, 3))}
        if rng.random() < 0.4:
            run |= {"server_restarts": 1000, "checkpoint_every": float(rng.choice([0.0, 0.5]))}
    native = ALGORITHMS[name].collective and rng.random() < 0.7
    if native:
        changes["network"]["collective"] = run["links"] = "native"
    made = tiny(name, workers, cluster=changes, run=run)
    return made.override({"faults": _faults(rng, name, workers, seconds, native)})


def played(scenario: Scenario) -> tuple[Record, int]:
    """A run, and how often a server was killed during it: where it may start again, after random times."""
    servers = range(scenario.cluster.workers, scenario.cluster.workers + scenario.cluster.servers.count)
    if not scenario.run.server_restarts:
        return real.train(scenario), 0
    begun = threading.Event()  # processes that die while the first ones start end the run
    with noting() as spawned, striking(spawned, begun, servers, scenario.run.seed, SELDOM) as killed:
        record = real.train(scenario, on_progress=lambda done, _: begun.set() if done else None)
    assert restarts(record) <= len(killed)
    return record, len(killed)


def soak(seconds: float, seed: int = 0, first: int = 0, tell: Any = print) -> dict[str, Counter[str]]:
    """Run after run for so long; counts by algorithm. Raises where one breaks a promise, and says which."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    end, number, files = time.monotonic() + seconds, first, 0
    while time.monotonic() < end:
        scenario = drawn(number, seed)
        try:
            record, killed = played(scenario)
            must_reconcile(record)
            late = record.duration - scenario.run.seconds
            assert late < LATE, f"somebody was stuck: the run ended {late:.1f} s after its budget was met"
            _nothing_stays()
        except BaseException:
            tell(f"run {number} of seed {seed} broke a promise: {scenario.to_dict()}")
            raise
        own = Counter({**dict(_counted(record)), "killed": killed})
        counts[scenario.algorithm.name].update(own)
        opened = len(os.listdir("/proc/self/fd"))
        files = files or opened
        assert opened <= files + 8, f"{opened} open files after run {number}, {files} after the first"
        tell(f"{number:4d} {scenario.algorithm.name:10s} " + _line(own))
        number += 1
    return counts


def _nothing_stays() -> None:
    """No process outlives its run but the fork server and the tracker of resources."""
    end = time.monotonic() + 10
    while True:
        children = psutil.Process().children(recursive=True)
        grand = [c for c in children if c.ppid() != os.getpid() and c.status() != psutil.STATUS_ZOMBIE]
        if not grand:
            return
        assert time.monotonic() < end, f"processes that outlived their run: {grand}"
        time.sleep(0.05)


def _counted(record: Record) -> Iterator[tuple[str, int]]:
    workers = record.nodes["role"] == "worker"
    yield "runs", 1
    yield "steps", int(record.nodes["steps"][workers].sum())
    for code, event in enumerate(EVENTS):
        yield event, int((record.events["event"] == code).sum())
    for fate in ("applied", "pending", "lost"):
        yield fate, int(record.nodes[fate][workers].sum())
    yield "restarted", restarts(record)
    yield "acknowledged", sum(record.manifest["acknowledged"].values())
    yield "dropped", sum(sum(reasons.values()) for reasons in record.manifest["frames_dropped"].values())


def _line(found: Counter[str]) -> str:
    return " ".join(f"{found[name]:7d}" for name in COLUMNS)


def table(counts: dict[str, Counter[str]]) -> str:
    """The counts as a Markdown table."""
    rows = [*counts.items(), ("all", sum(counts.values(), Counter[str]()))]
    lines = ["| algorithm | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{found[c]:,}" for c in COLUMNS) + " |" for name, found in rows]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    print(" " * 16 + " ".join(f"{name[:7]:>7s}" for name in COLUMNS))
    print(table(soak(chosen.seconds, chosen.seed, chosen.first)))


if __name__ == "__main__":
    main()
