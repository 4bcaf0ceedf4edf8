"""Trials: seeded random schedules of faults, delays and reorderings on the simulator, as data.

    python benchmarks/fault_schedules.py --replay 'TRIAL'     runs one again

Rules this module obeys:

* Everything about a trial follows from an algorithm's name and a seed, and can be written down as JSON: a
  scenario and an ``order``. So a trial can be changed (``tests.conformance.shrinking``) and run again.
* ``order`` seeds what is adversarial within the contract: every message has a latency of its own (``delay``
  is their mean, seconds), so messages of different pairs overtake each other; and what happens in one instant
  happens in any order.
* Faults of every kind strike workers and servers, by time, by step and by rate, silences that are too long
  among them. What cannot happen is not drawn, or drawn again. Servers that leave and join are drawn last, by
  dice of their own, and left out where they cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any

import numpy as np

from core.algorithms import ALGORITHMS, find
from core.collectives import ALGORITHMS as REDUCTIONS
from scenarios import Scenario, ScenarioError
from scenarios.schema import plain
from tests.conformance.contracts import CONTRACTS, Contract

__all__ = ["STEP", "Trial", "draw", "several_lives", "tie_breaker"]

STEP = 0.05
"""Mean step time, seconds."""

MOST = 100
"""Gradients that one worker may compute in all its lives; where all keep dying a run may never end."""

FEW = 30
"""The same where it has one life and a budget in seconds."""

TIMEOUT = 0.3
"""``run.heartbeat_timeout``: some silences are longer."""


@dataclass(frozen=True)
class Trial:
    """A scenario, as a tree; ``order``: None for the simulator's own, or the seed of another; ``delay``: mean
    latency per message that comes on top of the scenario's, seconds."""

    scenario: dict[str, Any]
    order: int | None = None
    delay: float = 0.0

    @property
    def algorithm(self) -> type:
        """Its class."""
        return find(self.scenario["algorithm"]["name"])

    @property
    def contract(self) -> Contract:
        """What the algorithm has promised."""
        return CONTRACTS[self.algorithm.name]  # type: ignore[attr-defined]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Workers; slices of the flat vector; gradients per worker that there is room for in it."""
        cluster = self.scenario["cluster"]
        workers, slices = cluster["workers"], cluster["servers"]["count"]
        return workers, slices, self.scenario["workload"]["parameters"] // (workers * slices)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"scenario": plain(self.scenario), "order": self.order, "delay": self.delay}


class _Dice:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def of(self, *values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def luck(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def whole(self, low: int, high: int) -> int:
        """In [low, high)."""
        return int(self.rng.integers(low, high))

    def real(self, low: float, high: float) -> float:
        return round(float(self.rng.uniform(low, high)), 4)

    def scale(self, low: float, high: float) -> float:
        """10 to some power."""
        return float(f"{10 ** self.rng.uniform(low, high):.3g}")


def draw(name: str, seed: int) -> Trial:
    """The trial of ``seed``."""
    for attempt in count():
        dice = _Dice(np.random.default_rng([seed, attempt, *name.encode()]))
        try:
            scenario = _scenario(dice, name, seed)
            Scenario.from_dict(scenario)
        except ScenarioError as refused:
            if not str(refused).startswith("faults:"):
                raise
            continue
        scenario = _moving(_Dice(np.random.default_rng([seed, attempt, 0, *name.encode()])), scenario)
        adversarial = dice.luck(0.7)
        return Trial(
            scenario,
            order=dice.whole(0, 1_000_000) if adversarial else None,
            delay=dice.of(0.0, 1e-3, 0.01, STEP) if adversarial else 0.0,
        )
    raise AssertionError("never")


def _scenario(dice: _Dice, name: str, seed: int) -> dict[str, Any]:
    contract, kind = CONTRACTS[name], ALGORITHMS[name]
    workers = dice.whole(contract.fewest, 7)
    servers = dice.whole(1, 4)
    steps = dice.whole(1, 11)
    joins = bool(getattr(kind, "joins", False)) and dice.luck(0.8)
    native = kind.collective and (joins or dice.luck(0.3))
    budget = dice.of({"steps": steps}, {"steps": steps}, {"steps": steps}, {"samples": steps * workers},
                     {"seconds": steps * STEP})  # fmt: skip
    faults = _faults(dice, workers, servers if kind.centralized else 0, joins, steps)
    room = MOST if several_lives(faults) else budget.get("steps") or budget.get("samples") or FEW
    size = servers * workers * room
    work = {"apply": 0.02, "mix": 0.01, "accumulate": 5e-3, "snapshot": 5e-3}
    bandwidth = float(f"{size * 8 / STEP * 10 ** dice.rng.uniform(-1, 2):.3g}")
    shared, emulated = _sharing(dice, bandwidth, native)
    return {
        "name": f"trial {seed}",
        "cluster": {
            "workers": workers,
            "workers_per_machine": dice.of(1, 1, 1, 2),
            "bandwidth": bandwidth,
            "latency": dice.of(0, 1e-4, STEP),
            "servers": {"count": servers, "placement": dice.of("dedicated", "beside"), "sharding": "memory"},
            "network": {
                "admission": dice.of("fifo", "fair", 2),
                "window": dice.of(1, 1, 2, "unlimited"),
                "inbox": dice.of(1, 2, 2, "unlimited"),
                "overhead": dice.of(0, 1e-3),
                "collective": "native" if native else "messages",
                "allreduce": REDUCTIONS[dice.whole(0, len(REDUCTIONS))],
            },
            "compute": dice.of(
                {"model": "constant", "mean": STEP},
                {"model": "lognormal", "mean": STEP, "spread": 0.8},
                {"model": "shifted_exponential", "mean": STEP, "spread": 1.0},
            ),
            "slowdowns": dice.of(
                [], [], [{"kind": "fixed", "ranks": [dice.whole(0, workers)], "factor": dice.of(2, 10)}]
            ),
            "tensor_seconds": dice.of({}, {}, work),
            **shared,
        },
        "workload": {"parameters": size, "batch": 1, "data": "synthetic", "samples": 1},
        "algorithm": {
            "name": name, "options": plain(contract.options(dice.rng, workers)),
            "lr": 1.0, "lr_scaling": "none", "momentum": 0.0,
        },
        "run": {"seed": seed, "heartbeat_timeout": TIMEOUT, **budget, **emulated},
        "faults": faults,
    }  # fmt: skip


def _sharing(dice: _Dice, bandwidth: float, native: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Workers that share a device, now and then, or all nodes one host: fields of the cluster, of the run."""
    if dice.luck(0.15):
        return {"workers_per_device": 2, "device_slots": dice.of(1.0, 1.5)}, {}
    if dice.luck(0.15):
        host = {"cores": dice.of(1, 2, 4), "byte_cost": dice.of(0.0, 0.5 / bandwidth)}
        host |= {"slots": dice.of([], [1.0, 1.8, 1.5]), "beside": dice.of([], [0.0, 1.5])}
        host |= {"gradient": dice.of(0.0, 0.01), "cold": dice.of(0.0, 1e-3), "ring_lag": dice.of(0.0, 1e-3)}
        host["handover"] = host["cold"]
        host["message"] = dice.of(0.0, 2e-3)
        links = "native" if native else dice.of("native", "paced")
        return {"host": host}, {"compute": dice.of("native", "paced"), "links": links}
    return {}, {}


def several_lives(faults: list[dict[str, Any]]) -> bool:
    """Whether anybody comes while the run is under way, or any server crashes."""
    return any(
        fault["kind"] not in ("freeze", "cut")
        and (
            fault["kind"] == "join"
            or bool(fault.get("join") or fault.get("servers"))
            or fault.get("back") is not None
        )
        for fault in faults
    )


def _faults(dice: _Dice, workers: int, servers: int, joins: bool, steps: int) -> list[dict[str, Any]]:
    span = 1.5 * steps * STEP
    found: list[dict[str, Any]] = []
    for rank in range(workers):
        found += [_of_worker(dice, rank, joins, steps, span) for _ in range(dice.of(0, 0, 1, 1, 2))]
    if dice.luck(0.2):
        rates = {dice.of("crash", "leave"): dice.real(0.2, 2)}
        away = dice.scale(-3, 0) if joins else 0.0
        comes = {"join": 1 / away} if away > 0.1 else {"back": away} if away else {}
        found.append({"kind": "churn", **rates, **comes})
    for server in range(servers):
        if dice.luck(0.3):
            found.append(_of_server(dice, server, span))
        if dice.luck(0.3):
            length = dice.scale(-3, -0.6) if dice.luck(0.97) else 2 * TIMEOUT
            at = dice.real(0, span)
            found.append({"kind": dice.of("freeze", "cut"), "servers": [server], "at": at, "back": length})
    order: list[int] = dice.rng.permutation(len(found)).tolist()
    return [found[i] for i in order]


def _moving(dice: _Dice, scenario: dict[str, Any]) -> dict[str, Any]:
    """``scenario`` with servers that leave and join, now and then, if it has any."""
    if not ALGORITHMS[scenario["algorithm"]["name"]].centralized or dice.luck(0.4):
        return scenario
    servers, span = scenario["cluster"]["servers"]["count"], 15 * STEP
    for server in range(servers):
        if dice.luck(0.3):
            continue
        at, back = dice.real(1e-3, span), {"back": dice.scale(-3, 0)} if dice.luck(0.7) else {}
        fault = dice.of(
            {"kind": "leave", "servers": [server], "at": at, **back},
            {"kind": "leave", "servers": [server], "at": at, **back},
            {"kind": "join", "servers": [server], "at": at},
            {"kind": "churn", "servers": [server], "leave": dice.of(1.0, 4.0), "back": dice.scale(-2, 0)},
            {"kind": "churn", "servers": [server], "leave": dice.of(1.0, 4.0), "join": dice.of(1.0, 20.0)},
            {"kind": "churn", "servers": [server], "join": 1 / at},
        )
        tried = scenario | {"faults": [*scenario["faults"], fault]}
        try:
            Scenario.from_dict(tried)
        except ScenarioError as refused:
            if not str(refused).startswith("faults:"):
                raise
            continue
        scenario = tried
    return scenario


def _of_worker(dice: _Dice, rank: int, joins: bool, steps: int, span: float) -> dict[str, Any]:
    kind = dice.of("crash", "leave", "freeze", "cut", "join" if joins else "freeze")
    by_step = {"step": dice.whole(1, steps + 1)}
    when = {"at": dice.real(0, span)} if kind in ("cut", "join") or dice.luck(0.6) else by_step
    fault = {"kind": kind, "ranks": [rank], **when}
    if kind in ("freeze", "cut"):
        fault["back"] = dice.scale(-3, -0.3) if dice.luck(0.85) else 2 * TIMEOUT
    elif kind != "join" and joins and dice.luck(0.7):
        fault["back"] = dice.scale(-4, -0.3)
    elif kind == "join":
        fault["at"] = at = fault["at"] + 1e-3
        if at > 0.7 * span:
            return {"kind": "churn", "ranks": [rank], "join": 1 / at}
    return fault


def _of_server(dice: _Dice, server: int, span: float) -> dict[str, Any]:
    when = dice.of({"kind": "crash", "at": dice.real(0, span)}, {"kind": "churn", "crash": 1.0})
    every = {"checkpoint_every": dice.of(0.0, 0.0, 0.2)}
    return {"servers": [server], "back": dice.scale(-3, -0.3), **when, **every}


def tie_breaker(seed: int) -> Any:
    """Sequence numbers of events in random order, no two alike."""
    random = Random(seed)
    return ((random.getrandbits(24) << 32) + number for number in count())
