"""Servers that leave and join in the simulator: what moves, for how long, where it is then, what is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenarios
from core.algorithms import ALGORITHMS
from core.record import EVENTS, PARTS, Record
from scenarios import Scenario
from scenarios.plan import plan
from sim import simulate
from sim.checkpoint import Checkpoints
from sim.driver import Driver
from sim.errors import ServerLost
from sim.faults import Faulty
from tests.sim.samples import digest

ACCOUNTED = [
    name for name, kind in ALGORITHMS.items() if kind.centralized and getattr(kind, "sends_gradients", True)
]
BANDWIDTH, LATENCY = 1e8, 1e-3
SLICE = 4e6
"""Bytes of each of two slices."""


def chosen(name: str, faults: list[dict[str, Any]], servers: int = 2, **more: Any) -> Scenario:
    """Four workers on machines of their own, or so many as are asked for."""
    fixed: dict[str, Any] = {
        "algorithm.name": name, "algorithm.momentum": 0.0, "run.links": "native", "run.steps": 20,
        "cluster.servers.count": servers, "cluster.bandwidth": BANDWIDTH, "cluster.latency": LATENCY,
        "cluster.servers.sharding": "memory", "workload.parameters": int(SLICE / 4 * 2), "faults": faults,
        "workload.data": "synthetic",
    }  # fmt: skip
    return scenarios.load("demo", fixed | {key.replace("__", "."): value for key, value in more.items()})


def run(name: str, faults: list[dict[str, Any]], servers: int = 2, **more: Any) -> Record:
    return simulate(chosen(name, faults, servers, **more))


def events(record: Record, first: int = 4) -> list[tuple[str, int, float]]:
    """(what, number of the server, when) of what befell servers."""
    table = (record.events[name].tolist() for name in ("event", "node", "time"))
    return [(EVENTS[e], node - first, time) for e, node, time in zip(*table, strict=True) if node >= first]


def named(record: Record, first: int = 4) -> list[tuple[str, int]]:
    return [(event, server) for event, server, _ in events(record, first)]


def reconcile(record: Record) -> None:
    """Nothing is lost, every second is booked, and bytes that left nodes left machines."""
    nodes = record.nodes
    workers = nodes["role"] == "worker"
    assert (nodes["applied"] + nodes["pending"])[workers].tolist() == nodes["steps"][workers].tolist()
    assert nodes["lost"].sum() == 0
    np.testing.assert_allclose(sum(nodes[part] for part in PARTS), record.duration, rtol=1e-9)
    assert nodes["bytes_out"].sum() == pytest.approx(nodes["bytes_in"].sum(), rel=1e-9)
    assert nodes["messages_out"].sum() == nodes["messages_in"].sum()


# How long it takes

BUSY = {"cluster__compute__mean": 10.0, "run__steps": 2}
"""Everybody computes: nothing else is on the way."""


@pytest.mark.parametrize("admission", ["fifo", "fair", 2])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_hand_over_takes_its_bytes_over_the_rate_of_the_path(admission: Any, momentum: float) -> None:
    leave = {"kind": "leave", "servers": [1], "at": 5.0}
    record = run("asp", [leave], cluster__network__admission=admission, algorithm__momentum=momentum, **BUSY)
    (left, ready), slices = events(record), 2 if momentum else 1
    assert (left[:2], ready[:2]) == (("leave", 1), ("ready", 1))
    assert ready[2] - left[2] == pytest.approx(LATENCY + slices * SLICE / BANDWIDTH, rel=1e-9)
    reconcile(record)


def test_overhead_and_a_slow_up_link_count() -> None:
    """Every machine is in a rack of its own, behind an up-link of a tenth of its bandwidth."""
    racks = {"cluster.racks": 4, "cluster.machines_per_rack": 1, "cluster.uplink": BANDWIDTH / 10}
    leave = {"kind": "leave", "servers": [1], "at": 5.0}
    record = run("asp", [leave], cluster__network__overhead=0.25, **BUSY, **racks)
    (_, _, left), (_, _, ready) = events(record)
    assert ready - left >= 0.25 + SLICE / (BANDWIDTH / 10)
    assert ready - left == pytest.approx(0.25 + SLICE / (BANDWIDTH / 10), rel=0.05)


def test_what_is_gathered_goes_along() -> None:
    """BSP: worker 0 has contributed, the others have not."""
    slow = [{"kind": "fixed", "ranks": [1, 2, 3], "factor": 4}]
    record = run("bsp", [{"kind": "leave", "servers": [0], "at": 20.0}], cluster__slowdowns=slow, **BUSY)
    (_, _, left), (_, _, ready) = events(record)
    assert ready - left == pytest.approx(LATENCY + 2 * SLICE / BANDWIDTH, rel=1e-9)
    reconcile(record)


def test_a_hand_over_within_one_machine_takes_its_local_bandwidth() -> None:
    leave = {"kind": "leave", "servers": [1], "at": 5.0}
    near = {"cluster__servers__placement": ["machine0", "machine0"], "cluster.local_bandwidth": 4 * BANDWIDTH}
    record = run("asp", [leave], **BUSY, **near, **{"cluster.local_latency": 0.0})
    (_, _, left), (_, _, ready) = events(record)
    assert ready - left == pytest.approx(SLICE / (4 * BANDWIDTH), rel=1e-9)


@pytest.mark.parametrize("admission", ["fifo", "fair"])
def test_two_hand_overs_over_one_nic_share_it(admission: str) -> None:
    """Server 2's slice is on server 1's machine; both leave it at once, for server 0's."""
    faults = [{"kind": "join", "servers": [2], "at": 100.0}, {"kind": "leave", "servers": [1], "at": 5.0}]
    size = SLICE * 2 / 3
    record = run("asp", faults, 3, cluster__network__admission=admission, **BUSY)
    driver = Faulty(plan(chosen("asp", faults, 3)))
    assert driver.moves is not None
    assert driver.moves.places == [0, 1, 0], "the next in order of number of those with fewest slices"
    (_, _, left), (_, _, ready) = events(record)
    assert ready - left == pytest.approx(LATENCY + size / BANDWIDTH, rel=1e-6)
    both = [{"kind": "join", "servers": [1, 2], "at": 5.0}]
    record = run("asp", both, 3, cluster__network__admission=admission, **BUSY)
    found = events(record)
    assert [event for event, _, _ in found] == ["join", "join", "ready", "ready"]
    last = LATENCY + 2 * size / BANDWIDTH  # one after the other or both at once: the up-link is full
    assert found[-1][2] - 5.0 == pytest.approx(last, rel=1e-6)
    first = last if admission == "fair" else LATENCY + size / BANDWIDTH
    assert found[2][2] - 5.0 == pytest.approx(first, rel=1e-6)


# Where slices are then


def together(scenario: Scenario) -> Record:
    """The run with both servers on the machine of the first, from the beginning."""
    made = plan(replace(scenario, faults=()))
    return Driver(replace(made, machine_of=(*made.machine_of[:-1], made.machine_of[-2]))).run()


@pytest.mark.parametrize("admission", ["fifo", "fair"])
@pytest.mark.parametrize("name", ["asp", "bsp", "aladdin"])
def test_who_never_comes_makes_a_run_as_with_both_servers_on_one_machine(name: str, admission: str) -> None:
    scenario = chosen(
        name, [{"kind": "join", "servers": [1], "at": "1 h"}], cluster__network__admission=admission
    )
    guest, placed = simulate(scenario), together(scenario)
    for table in ("steps", "nodes", "links", "gradients"):
        for column, values in getattr(placed, table).items():
            np.testing.assert_array_equal(getattr(guest, table)[column], values, err_msg=f"{table}.{column}")
    assert run(name, [], cluster__network__admission=admission).duration < placed.duration


@pytest.mark.parametrize("admission", ["fifo", "fair"])
def test_after_a_leave_the_two_slices_share_a_nic_and_after_the_return_they_do_not(admission: str) -> None:
    leave = {"kind": "leave", "servers": [1], "at": 5.0, "back": 10.0}
    more = {"cluster__network__admission": admission, "run__steps": 200, "algorithm__momentum": 0.9}
    moved, apart = run("asp", [leave], **more), run("asp", [], **more)
    near = together(chosen("asp", [], **more))
    assert events(moved)[0] == ("leave", 1, 5.0)
    assert events(moved)[2] == ("join", 1, 15.0)

    def pace(record: Record, start: float, end: float) -> float:
        """Gradients per second that server 0 applied."""
        times = record.gradients["time"][record.gradients["server"] == 4]
        return float(((times > start) & (times < end)).sum() / (end - start))

    usual, shared = pace(apart, 1.0, 5.0), pace(near, 6.0, 15.0)
    assert shared < 0.7 * usual
    assert pace(moved, 1.0, 5.0) == usual
    assert pace(moved, 6.0, 15.0) == pytest.approx(shared, rel=0.03)
    assert pace(moved, 18.0, 33.0) >= 0.97 * pace(apart, 18.0, 33.0)
    reconcile(moved)


def test_slices_spread_over_those_that_are_there_and_guests_move_on() -> None:
    faults = [
        {"kind": "leave", "servers": [1], "at": 1.0},  # to 2
        {"kind": "leave", "servers": [3], "at": 2.0},  # to 0
        {"kind": "leave", "servers": [2], "at": 3.0, "back": 1.0},  # with 1: both to 0, the only one
        {"kind": "join", "servers": [3], "at": 5.0},
    ]
    driver = Faulty(plan(chosen("asp", faults, 4, cluster__compute__mean=10.0, run__steps=2)))
    record = driver.run()
    assert driver.moves is not None
    assert driver.moves.places == [0, 0, 2, 3], "who comes gets its own slice, and no other"
    assert driver.moves.there == {0, 2, 3}
    assert named(record) == [
        ("leave", 1), ("ready", 1), ("leave", 3), ("ready", 3), ("leave", 2), ("ready", 1), ("ready", 2),
        ("join", 2), ("ready", 2), ("join", 3), ("ready", 3),
    ]  # fmt: skip
    machines = [host.nic.index for host in driver.hosts[4:]]
    assert machines == [driver.plan.machine_of[4 + place] for place in driver.moves.places]
    reconcile(record)


def test_who_is_back_before_its_slice_has_gone_gets_it_when_it_has() -> None:
    leave = {"kind": "leave", "servers": [1], "at": 5.0, "back": 0.01}
    record = run("asp", [leave], **BUSY)
    took = LATENCY + SLICE / BANDWIDTH
    assert named(record) == [("leave", 1), ("join", 1), ("ready", 1)]
    assert events(record)[-1][2] == pytest.approx(5.0 + 2 * took, rel=1e-9)


def test_what_was_carried_counts_where_it_was_carried() -> None:
    leave = {"kind": "leave", "servers": [1], "at": 2.0, "back": 1.0}
    record = run("asp", [leave], algorithm__momentum=0.0, run__steps=40)
    reconcile(record)
    nodes, links = record.nodes, record.links
    up = links["bytes"][links["direction"] == "up"]
    assert up.sum() == pytest.approx(nodes["bytes_out"].sum(), rel=1e-9)
    np.testing.assert_allclose(up[:4], nodes["bytes_out"][:4], rtol=1e-12)
    assert nodes["messages_out"][5] == nodes["messages_out"][4] + 2, "two hand-overs"
    assert nodes["bytes_out"][5] == nodes["bytes_out"][4] + 2 * SLICE
    assert up[4] > up[5] > 0


# What is lost: nothing

COME_AND_GO = [
    {"kind": "leave", "servers": [1], "at": 0.5, "back": 0.6},
    {"kind": "join", "servers": [2], "at": 0.4},
    {"kind": "crash", "servers": [0], "at": 1.0, "back": 0.2},
    {"kind": "leave", "servers": [2], "at": 1.9},
]


class Marks:
    """Gradients of ones at a place of their own, whatever the parameters are."""

    steps = 30
    initial = np.zeros(4 * steps * 3)

    def __call__(self, params: Any, rank: int, step: int) -> Any:
        gradient = np.zeros((3, 4, self.steps))
        gradient[:, rank, step] = 1.0
        return gradient.reshape(-1)


@pytest.mark.parametrize("admission", ["fifo", "fair", 2])
@pytest.mark.parametrize("name", ACCOUNTED)
def test_no_gradient_is_lost_or_applied_twice(name: str, admission: Any) -> None:
    """Worker 3 leaves, so that something of it may lie unread; parameters say how often all was applied."""
    faults = [*COME_AND_GO, {"kind": "leave", "ranks": [3], "at": 0.45}]
    slow = {"cluster__bandwidth": 4e3, "cluster__tensor_seconds": {"apply": 0.004, "snapshot": 0.002}}
    more = slow | {"algorithm__lr": 1.0, "algorithm__lr_scaling": "none", "run__steps": Marks.steps}
    scenario = chosen(name, faults, 3, workload__parameters=Marks.initial.size,
                      cluster__network__admission=admission, **more)  # fmt: skip
    driver = Faulty(plan(scenario), gradients=Marks())
    record = driver.run()
    reconcile(record)
    assert [what for what in named(record) if what[0] != "ready"][:4] == [
        ("join", 2), ("leave", 1), ("crash", 0), ("join", 1)
    ]  # fmt: skip
    made = [host.node.step for host in driver.hosts[:4]]
    for server in driver.hosts[4:]:
        applied = -server.node.params.reshape(4, Marks.steps)
        for rank, share in enumerate(applied):
            times = server.node.ledger.applied.get(rank, 0)
            assert np.count_nonzero(share) == times
            assert times + server.node.ledger.pending().get(rank, 0) == made[rank]
            if name != "bsp":  # which takes means of as many as there are
                np.testing.assert_allclose(share[:times], 0.25, rtol=1e-12)


def test_nothing_is_applied_while_a_slice_is_on_its_way() -> None:
    """Nor by news: worker 3 dies meanwhile, for whom alone everybody else had been waiting."""
    slow = [{"kind": "fixed", "ranks": [3], "factor": 100}]
    more = {"cluster__slowdowns": slow, "cluster__bandwidth": 1e7, "cluster__compute__mean": 1.0}
    faults = [{"kind": "leave", "servers": [1], "at": 10.0}, {"kind": "crash", "ranks": [3], "at": 10.2}]
    record = run("bsp", faults, run__steps=3, **more)
    (_, _, left), (_, _, ready) = events(record)
    assert ready - left > 0.8, "the slice, and what it had gathered"
    times = record.gradients["time"][record.gradients["server"] == 5]
    assert times[:3].tolist() == [ready] * 3, "as soon as it is there, it hears of that"
    assert (record.gradients["time"][record.gradients["server"] == 4][:3] == 10.2).all()


def test_what_it_was_at_is_done_first() -> None:
    """A server needs a second to apply the gradients that it has when it is told to leave."""
    more = {"cluster__tensor_seconds": {"apply": 1.0}, "run__steps": 2, "cluster__compute__mean": 1.0}
    record = run("asp", [{"kind": "leave", "servers": [1], "at": 1.5}], **more)
    (_, _, left), (_, _, ready) = events(record)
    first = record.gradients["time"][record.gradients["server"] == 5][0]
    assert 1.0 < first < left < first + 1.0
    assert ready == pytest.approx(first + 1.0 + LATENCY + SLICE / BANDWIDTH, rel=1e-9)
    reconcile(record)


# With faults of other kinds


def test_a_crash_ends_a_hand_over_which_begins_anew() -> None:
    took = LATENCY + SLICE / BANDWIDTH
    faults = [
        {"kind": "leave", "servers": [1], "at": 5.0},
        {"kind": "crash", "servers": [1], "at": 5.0 + took / 2, "back": 1.0},
    ]
    record = run("asp", faults, **BUSY)
    assert named(record) == [("leave", 1), ("crash", 1), ("join", 1), ("ready", 1)]
    assert events(record)[-1][2] == pytest.approx(6.0 + 1.5 * took, rel=1e-9)
    reconcile(record)


def test_what_it_is_told_on_its_way_outlives_a_freeze_and_a_crash() -> None:
    """BSP: worker 3, whom all wait for, dies while the slice is on its way, frozen, then dead."""
    slow = [{"kind": "fixed", "ranks": [3], "factor": 100}]
    more = {"cluster__slowdowns": slow, "cluster__bandwidth": 1e7, "cluster__compute__mean": 1.0}
    faults = [
        {"kind": "leave", "servers": [1], "at": 10.0},
        {"kind": "freeze", "servers": [1], "at": 10.1, "back": 2.0},
        {"kind": "crash", "ranks": [3], "at": 10.2},
        {"kind": "crash", "servers": [1], "at": 10.3, "back": 1.0},
    ]
    record = run("bsp", faults, run__steps=3, **more)
    assert named(record) == [("leave", 1), ("freeze", 1), ("crash", 1), ("join", 1), ("ready", 1)]
    ready = events(record)[-1][2]
    assert record.gradients["time"][record.gradients["server"] == 5][:3].tolist() == [ready] * 3
    assert record.nodes["steps"][:3].tolist() == [3] * 3


def test_a_guest_crashes_where_it_is_and_so_may_its_keeper() -> None:
    faults = [
        {"kind": "leave", "servers": [1], "at": 1.0},
        {"kind": "crash", "servers": [1], "at": 2.0, "back": 0.5},
        {"kind": "crash", "servers": [0], "at": 3.0, "back": 0.5},
    ]
    driver = Faulty(plan(chosen("asp", faults, run__steps=60)))
    record = driver.run()
    assert named(record) == [
        ("leave", 1), ("ready", 1), ("crash", 1), ("join", 1), ("crash", 0), ("join", 0)
    ]  # fmt: skip
    times, servers = record.gradients["time"], record.gradients["server"]
    for server, start in ((5, 2.0), (4, 3.0)):
        out = (times > start) & (times < start + 0.5)
        assert not (servers[out] == server).any()
    reconcile(record)
    with pytest.raises(ServerLost, match=r"server 1 \(node 5\) died at 2 s"):
        run("asp", [faults[0], {"kind": "crash", "servers": [1], "at": 2.0}], run__steps=60)


def test_a_keeper_that_leaves_while_its_guest_is_down_waits_for_it() -> None:
    faults = [
        {"kind": "leave", "servers": [1], "at": 1.0},  # to 2
        {"kind": "crash", "servers": [1], "at": 2.0, "back": 1.0},
        {"kind": "leave", "servers": [2], "at": 2.5},
    ]
    record = run("asp", faults, 3, run__steps=80)
    assert named(record) == [
        ("leave", 1), ("ready", 1), ("crash", 1), ("leave", 2), ("ready", 2), ("join", 1), ("ready", 1)
    ]  # fmt: skip
    reconcile(record)


@pytest.mark.parametrize("admission", ["fifo", "fair"])
@pytest.mark.parametrize("kind", ["freeze", "cut"])
def test_a_silence_of_the_slice_holds_its_hand_over_up(kind: str, admission: str) -> None:
    took = LATENCY + SLICE / BANDWIDTH
    faults = [
        {"kind": "leave", "servers": [1], "at": 5.0},
        {"kind": kind, "servers": [1], "at": 5.0 + took / 2, "back": 0.25},
    ]
    record = run("asp", faults, cluster__network__admission=admission, **BUSY)
    assert events(record)[-1] == ("ready", 1, pytest.approx(5.25 + took, rel=1e-9))
    reconcile(record)


def test_by_rate_the_last_one_stays() -> None:
    """Two servers leave ten times a second each, for a tenth of a second."""
    churn = {"kind": "churn", "servers": [0, 1], "leave": "10 per s", "back": "100 ms"}
    record = run("asp", [churn], workload__parameters=1000, run__steps=200)
    there = {0, 1}
    for event, server, _ in events(record):
        if event == "leave":
            there.remove(server)
            assert there
        elif event == "join":
            there.add(server)
    leaves = sum(event == "leave" for event, _, _ in events(record))
    assert leaves > 5 * record.duration
    reconcile(record)
    run("asp", [{"kind": "churn", "servers": [0], "leave": 100}], 1)  # never


def test_many_servers_and_workers_come_and_go_by_rate() -> None:
    faults = [
        {"kind": "churn", "servers": "0-11", "leave": "30 per min", "back": "500 ms"},
        {"kind": "churn", "servers": "4-11", "crash": "6 per min", "join": "5 per s"},
        {"kind": "churn", "servers": "12-15", "join": "1 per s"},
        {"kind": "churn", "crash": "3 per min", "leave": "3 per min", "back": "300 ms"},
        {"kind": "cut", "servers": [3, 7], "at": 1.0, "back": 0.3},
    ]
    record = run("asp", faults, 16, cluster__workers=64, workload__parameters=64_000, run__steps=40)
    nodes, first = record.nodes, 64
    workers = nodes["role"] == "worker"
    fates = nodes["applied"] + nodes["pending"] + nodes["lost"]
    assert fates[workers].tolist() == nodes["steps"][workers].tolist()
    died = set(record.events["node"][record.events["event"] == EVENTS.index("crash")].tolist())
    assert set(np.flatnonzero(nodes["lost"]).tolist()) <= died
    kinds = [event for event, _, _ in events(record, first)]
    assert {"leave", "join", "ready", "crash", "cut", "heal"} <= set(kinds)
    moved, seconds = kinds.count("leave"), record.duration
    assert 0.2 * 12 * seconds / 4 < moved < 12 * seconds / 2 * 1.5
    lates = [server for event, server, _ in events(record, first) if event == "join" and server >= 12]
    assert sorted(lates) == [12, 13, 14, 15]


# The record


@pytest.mark.parametrize("name", ["asp", "bsp", "ssp", "aladdin"])
def test_the_same_seed_gives_the_same_bytes_with_shortcuts_or_without(name: str) -> None:
    churn = {"kind": "churn", "servers": [0, 1, 2], "leave": "1 per s", "crash": "0.5 per s", "back": 0.2}

    def record(seed: int, shortcuts: bool = True) -> str:
        made = plan(
            chosen(name, [churn, {"kind": "churn", "crash": "0.2 per s", "back": 0.1}], 3, run__seed=seed)
        )
        return digest(Faulty(made, shortcuts=shortcuts).run())

    assert record(1) == record(1) == record(1, shortcuts=False)
    assert record(1) != record(2)


def test_a_hand_over_that_serves_nobody_does_not_make_the_run_longer() -> None:
    """The only worker has its last answer of server 0 and gets server 1's."""
    alone = {"cluster__workers": 1}
    usual = run("asp", [], **alone)
    leave = {"kind": "leave", "servers": [0], "at": usual.duration - 0.5 * SLICE / BANDWIDTH}
    late = run("asp", [leave], **alone)
    assert late.duration == usual.duration
    assert named(late, 1) == [("leave", 0)]
    reconcile(late)


def test_a_run_with_moving_servers_is_resumed_exactly(tmp_path: Path) -> None:
    scenario = chosen("asp", COME_AND_GO, 3, workload__parameters=Marks.initial.size, run__steps=Marks.steps)
    whole, steps = simulate(scenario, gradients=Marks()), 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == 45

    with pytest.raises(KeyboardInterrupt):
        simulate(scenario, gradients=Marks(), checkpoints=Checkpoints(tmp_path / "run", stop=stop))
    resumed = simulate(scenario, gradients=Marks(), checkpoints=Checkpoints(tmp_path / "run"))
    assert digest(whole) == digest(resumed)
