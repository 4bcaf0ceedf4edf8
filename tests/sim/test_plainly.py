"""Whole simulations against the same ones with sharing played plainly: rates from scratch at every change.

What is replaced: the fluid engine and its solver, the closed form of a message that is alone on its path, the
programs' shortcuts, and the leaving out of up-links that nothing can fill. What is left is admission,
the programs and the booking. Random clusters of racks, sites and machines that differ, all admissions,
servers and rings; every time and byte of the records to 1e-9. Equal messages that share a link end in the
same instant, and what follows them in an order that rounding decides; so shards are uneven, and the tree's
chunks and D-PSGD's exchanges are left out.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

import sim.network
import sim.routes
from core.record import Record
from scenarios.errors import ScenarioError
from scenarios.plan import Plan, plan
from scenarios.schema import Scenario
from sim.alarm import LATE, NORMAL, Alarm
from sim.clock import Clock
from sim.driver import Driver
from sim.fluid import Flow
from sim.network import Pair


def filled(flows: list[Flow]) -> dict[Flow, float]:
    """Max-min rates by their definition: the tightest link shares what it has left; take its flows away."""
    left = {link: link.capacity for flow in flows for link in flow.path}
    free, rates = list(flows), dict[Flow, float]()
    while free:
        count = Counter(link for flow in free for link in flow.path)
        tightest = min(count, key=lambda link: left[link] / count[link])
        rate = left[tightest] / count[tightest]
        for flow in [flow for flow in free if tightest in flow.path]:
            rates[flow] = rate
            for link in flow.path:
                left[link] -= rate
        free = [flow for flow in free if flow not in rates]
    return rates


class PlainFluid:
    """In place of ``sim.fluid.Fluid``. After every change it looks at everything that moves."""

    changes = busiest = shared = 0

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.bytes: dict[Flow, float] = {}
        self.rates: dict[Flow, float] = {}
        self.since, self.turn = 0.0, 0

    def start(self, flow: Flow, nbytes: float) -> None:
        self.move()
        self.bytes[flow] = nbytes
        self.change()

    def cancel(self, flow: Flow) -> None:
        self.move()
        del self.bytes[flow]
        self.rates.pop(flow, None)
        self.change()

    def left(self, flow: Flow) -> float:
        self.move()
        return self.bytes[flow]

    def move(self) -> None:
        """Take off what has passed since the last look."""
        now = self.clock.now
        for flow, rate in self.rates.items():
            self.bytes[flow] -= rate * (now - self.since)
        self.since = now

    def change(self) -> None:
        """All rates anew once everything else of this instant has happened."""
        self.turn += 1
        self.clock.at(self.clock.now, Wake(self, self.turn, ()), LATE)

    def share(self) -> None:
        """New rates, and an alarm for the next end."""
        self.rates = filled(list(self.bytes))
        PlainFluid.changes += 1
        PlainFluid.busiest = max(PlainFluid.busiest, len(self.rates))
        PlainFluid.shared += len(set(self.rates.values())) > 1
        lasts = {flow: self.bytes[flow] / rate for flow, rate in self.rates.items()}
        if lasts:
            first = min(lasts.values())
            ending = tuple(flow for flow, time in lasts.items() if time <= first + 1e-13 * abs(first))
            self.clock.at(self.clock.now + max(first, 0.0), Wake(self, self.turn, ending), NORMAL)

    def end(self, flows: tuple[Flow, ...]) -> None:
        self.move()
        for flow in flows:
            del self.bytes[flow], self.rates[flow]
        self.change()
        for flow in flows:
            flow.arrived()


class Wake(Alarm):
    def __init__(self, fluid: PlainFluid, turn: int, ending: tuple[Flow, ...]) -> None:
        self.fluid, self.turn, self.ending = fluid, turn, ending

    def fire(self) -> None:
        if self.turn == self.fluid.turn:
            if self.ending:
                self.fluid.end(self.ending)
            else:
                self.fluid.share()


class PlainPair(Pair):
    """Every message is a flow, also one that has its path for itself."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.rate = 0.0


def plainly(made: Plan, monkeypatch: pytest.MonkeyPatch) -> Record:
    with monkeypatch.context() as patch:
        patch.setattr(sim.network, "Fluid", PlainFluid)
        patch.setattr(sim.routes, "_wide", lambda *_: set())
        driver = Driver(made, shortcuts=False)
        driver.network.connect = PlainPair
        return driver.run()


def uneven(seed: int) -> Plan:
    """Racks or sites, several workers a machine, NICs and devices that all differ: hardly anything ties."""
    draw = random.Random(seed)
    cluster: dict[str, Any] = {
        "workers_per_machine": draw.choice([1, 2, 3]),
        "bandwidth": "1 Gbit/s",
        "latency": draw.choice(["0 s", "3 ms"]),
        "machines_per_rack": draw.choice([1, 2, 3]),
        "uplink": draw.choice([
            {"oversubscription": draw.choice([0.5, 1.5, 4])},
            {"up": "700 Mbit/s", "down": "300 Mbit/s", "latency": "2 ms", "overhead": "1 ms"},
        ]),
        "servers": {
            "count": draw.choice([1, 2, 3, 5]),
            "placement": draw.choice(["dedicated", "beside", "spread"]),
            "sharding": "layer",
        },
        "network": {
            "admission": draw.choice(["fifo", "fair", "fair", 2, 3]),
            "inbox": draw.choice([1, 2, "unlimited"]),
            "window": draw.choice([1, 3]),
            "overhead": draw.choice(["0 s", "1 ms"]),
            "backplane": draw.choice([0, 0, "1 Gbit/s"]),
            "collective": "messages",
            "allreduce": draw.choice(["ring", "halving_doubling", "hierarchical"]),
        },
        "compute": {"mean": "100 ms", "model": "lognormal", "spread": 0.3},
        "heterogeneity": {"bandwidth": 0.4, "speed": 0.3, "seed": seed},
        "tensor_seconds": draw.choice([{}, {"accumulate": 0.002, "apply": 0.01}]),
    }  # fmt: skip
    if draw.random() < 0.5:
        cluster["racks"] = draw.choice([2, 3, 4])
    else:
        cluster |= {"sites": ["a", "b", "c"], "racks_per_site": 1}
        cluster["wan"] = [
            {"between": ["a", "b"], "forth": "300 Mbit/s", "back": "1 Gbit/s", "latency": "10 ms"},
            {"between": ["b", "c"], "bandwidth": "500 Mbit/s", "latency": "20 ms", "latency_back": "25 ms"},
        ]
    name = draw.choice(["asp", "asp", "bsp", "ssp", "aladdin", "easgd", "arsgd", "adpsgd", "sgp"])
    return plan(Scenario.from_dict({
        "cluster": cluster, "workload": {"model": "resnet50", "data": "synthetic", "batch": 8},
        "algorithm": {"name": name}, "run": {"steps": 6, "seed": seed, "spans": True},
    }))  # fmt: skip


def drawn(seed: int) -> Plan:
    """A scenario out of those that ``seed`` stands for; not every combination is one."""
    for attempt in range(20):
        try:
            return uneven(100 * seed + attempt)
        except ScenarioError:
            continue
    raise AssertionError("no valid scenario in 20")


def keyed(table: dict[str, np.ndarray], *columns: str) -> dict[str, np.ndarray]:
    order = np.lexsort([table[name] for name in columns[::-1]])
    return {name: values[order] for name, values in table.items()}


@pytest.mark.parametrize("seed", range(30))
def test_the_record_is_that_of_plain_sharing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = drawn(seed)
    found, plain = Driver(made).run(), plainly(made, monkeypatch)
    what = str(made.scenario.to_dict())
    near = {"rtol": 1e-9, "atol": 1e-9 * plain.duration, "err_msg": what}
    assert found.duration == pytest.approx(plain.duration, rel=1e-9), what
    for one, other, columns in (
        (found.steps, plain.steps, ("node", "step")), (found.nodes, plain.nodes, ("node",)),
        (found.gradients, plain.gradients, ("source", "server", "time")),
    ):  # fmt: skip
        ours, theirs = keyed(one, *columns), keyed(other, *columns)
        for name, values in theirs.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(ours[name], values, **near)
            else:
                assert (ours[name] == values).all(), (name, what)


def test_plain_sharing_had_something_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would hold less than it says: many flows at once, of several bottlenecks."""
    monkeypatch.setattr(PlainFluid, "changes", 0)
    monkeypatch.setattr(PlainFluid, "busiest", 0)
    monkeypatch.setattr(PlainFluid, "shared", 0)
    for seed in range(8):
        plainly(drawn(seed), monkeypatch)
    assert PlainFluid.changes > 500
    assert PlainFluid.busiest >= 10
    assert PlainFluid.shared > PlainFluid.changes / 3
