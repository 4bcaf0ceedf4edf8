"""Faults of a scenario in the simulator: who goes, who comes, what is lost, what the record says."""

from __future__ import annotations

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
from sim.errors import ServerLost
from sim.faults import Faulty
from sim.host import Roster

JOINING = [name for name, kind in ALGORITHMS.items() if getattr(kind, "joins", False)]
ACCOUNTED = [
    name for name, kind in ALGORITHMS.items() if kind.centralized and getattr(kind, "sends_gradients", True)
]


def run(name: str, faults: list[dict[str, Any]], **more: Any) -> Record:
    return simulate(chosen(name, faults, **more))


def chosen(name: str, faults: list[dict[str, Any]], **more: Any) -> Scenario:
    fixed = {"algorithm.name": name, "run.links": "native", "cluster.network.collective": "native"}
    fixed |= {"run.steps": 20, "cluster.servers.count": 2, "faults": faults}
    return scenarios.load("demo", fixed | {key.replace("__", "."): v for key, v in more.items()})


class Numbers:
    """Gradients of a quadratic, different for every batch."""

    initial = np.ones(12)

    def __call__(self, params: Any, rank: int, step: int) -> Any:
        return 0.1 * params + np.sin(np.arange(12) + rank + 4 * step)


def numbers(name: str, faults: list[dict[str, Any]], **more: Any) -> Faulty:
    driver = Faulty(plan(chosen(name, faults, workload__parameters=12, **more)), gradients=Numbers())
    driver.run()
    return driver


def events(record: Record) -> list[tuple[str, int]]:
    return [
        (EVENTS[e], n)
        for e, n in zip(record.events["event"].tolist(), record.events["node"].tolist(), strict=True)
    ]


def reconcile(name: str, record: Record) -> None:
    """Every second is booked; computed = applied + pending + lost; only those that died lost any."""
    total = sum(record.nodes[part] for part in PARTS)
    np.testing.assert_allclose(total, record.duration, rtol=1e-9)
    rows = record.steps
    assert (sum(rows[part] for part in PARTS[:-1]) - (rows["end"] - rows["start"]) < 1e-9).all()
    if name in ACCOUNTED:
        nodes = record.nodes
        workers = nodes["role"] == "worker"
        done = nodes["applied"] + nodes["pending"] + nodes["lost"]
        assert done[workers].tolist() == nodes["steps"][workers].tolist()
        died = {node for event, node in events(record) if event == "crash"}
        assert {int(i) for i in np.flatnonzero(nodes["lost"])} <= died


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_crashes_and_leaves_by_time_and_by_step(name: str) -> None:
    faults = [{"kind": "crash", "ranks": [1], "at": "0.42 s"}, {"kind": "leave", "ranks": [2], "step": 5}]
    record = run(name, faults)
    reconcile(name, record)
    steps = record.nodes["steps"]
    assert steps[[0, 3]].tolist() == [20, 20]
    assert steps[1] < 20
    assert steps[2] == 5
    assert sorted(events(record)) == [("crash", 1), ("leave", 2)]


@pytest.mark.parametrize("name", JOINING)
def test_who_has_crashed_comes_back_with_the_parameters_of_the_others(name: str) -> None:
    record = run(name, [{"kind": "crash", "ranks": [1], "at": 0.3, "back": 0.1}])
    reconcile(name, record)
    assert events(record) == [("crash", 1), ("join", 1), ("ready", 1)]
    crash, join, ready = record.events["time"].tolist()
    assert (crash, join) == (0.3, pytest.approx(0.4))
    assert ready > join + 0.03, "so many bytes take their time"
    assert record.nodes["steps"][[0, 2, 3]].tolist() == [20] * 3


def test_the_same_faults_and_seed_give_the_same_bytes() -> None:
    def digest(seed: int) -> list[bytes]:
        record = run("asp", [{"kind": "churn", "crash": "1/s", "back": 0.2}], run__seed=seed)
        return [v.tobytes() for table in record.tables().values() for _, v in sorted(table.items())]

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_churn_comes_at_its_rate() -> None:
    """Of 200 workers at 0.5 crashes per second each, away 0.1 s at a time, for 6 s."""
    record = run(
        "gosgd", [{"kind": "churn", "crash": "30 per min", "back": "0.1 s"}],
        cluster__workers=200, run__steps=0, run__seconds=6, workload__parameters=1000,
    )  # fmt: skip
    crashes = sum(event == "crash" for event, _ in events(record))
    expected = 200 * 6 / (2 + 0.1)
    assert abs(crashes - expected) < 2.5 * expected**0.5


def test_workers_arrive_and_return_by_rate() -> None:
    """Sixty of eighty start late, two a second each; each of eighty is away for half a second every two."""
    small = {"cluster__workers": 80, "run__steps": 0, "workload__parameters": 1000}
    arrive = {"kind": "churn", "ranks": "20-79", "join": "2 per s"}
    record = run("gosgd", [arrive], run__seconds=4, **small)
    times = record.events["time"].tolist()
    joins = {node: time for time, (event, node) in zip(times, events(record), strict=True) if event == "join"}
    assert sorted(joins) == list(range(20, 80))
    assert np.mean([*joins.values()]) == pytest.approx(0.5, rel=0.4)
    come_and_go = {"kind": "churn", "crash": "30 per min", "join": "2 per s"}
    record = run("gosgd", [come_and_go], run__seconds=10, **small)
    crashes = sum(event == "crash" for event, _ in events(record))
    expected = 80 * 10 / (2 + 0.5)
    assert abs(crashes - expected) < 5 * expected**0.5
    there = 1 - record.nodes["idle"][:80].sum() / (80 * record.duration)
    assert there == pytest.approx(2 / 2.5, rel=0.15)


@pytest.mark.parametrize("name", JOINING)
def test_every_algorithm_that_takes_in_joiners_does_so_by_rate(name: str) -> None:
    arrive = {"kind": "churn", "ranks": [2, 3], "join": "4 per s"}
    record = run(name, [arrive, {"kind": "churn", "ranks": [1], "leave": 1, "join": "5 per s"}])
    reconcile(name, record)
    assert {("join", 2), ("join", 3)} <= set(events(record))


def test_a_returned_replica_goes_on_alike_momentum_included() -> None:
    """AR-SGD with momentum: whoever is there at the end has the same replica, bit for bit."""
    driver = numbers("arsgd", [{"kind": "crash", "ranks": [1], "at": 0.3, "back": 0.1}])
    replicas = [host.node.params for host in driver.hosts]
    assert driver.hosts[1].incarnation == 1
    assert all(host.node.step == 20 for host in driver.hosts)
    assert np.abs(replicas[0]).max() > 0
    for replica in replicas[1:]:
        np.testing.assert_array_equal(replica, replicas[0])


def test_diloco_hands_over_its_outer_state() -> None:
    driver = numbers("diloco", [{"kind": "crash", "ranks": [2], "at": 0.3, "back": 0.1}], algorithm__h=4)
    for host in driver.hosts[1:]:
        np.testing.assert_array_equal(host.node.params, driver.hosts[0].node.params)


def test_bsp_replicas_agree_after_joins_on_several_servers() -> None:
    faults = [
        {"kind": "join", "ranks": [3], "at": 0.2},
        {"kind": "crash", "ranks": [1], "at": 0.5, "back": 0.01},
    ]
    driver = numbers("bsp", faults, cluster__servers__count=3)
    for host in driver.hosts[1:4]:
        np.testing.assert_array_equal(host.node.params, driver.hosts[0].node.params)


def test_a_server_that_comes_back_has_lost_nothing() -> None:
    crash = {"kind": "crash", "servers": [0], "at": 1.0, "back": 0.5}
    durable = run("asp", [crash], run__steps=40)
    assert durable.nodes["lost"].sum() == 0
    seldom = run("asp", [{**crash, "checkpoint_every": 0.6}], run__steps=40)
    assert seldom.nodes["lost"].sum() == 0, "what came after its last checkpoint is in its journal"
    workers = durable.nodes["role"] == "worker"
    assert (durable.nodes["steps"][workers] == 40).all()
    gradients = durable.gradients
    down = (gradients["server"] == 4) & (gradients["time"] > 1.0) & (gradients["time"] < 1.5)
    assert not down.any(), "nothing is applied by a server that is down"


def test_a_server_that_does_not_come_back_ends_the_run_and_keeps_what_was_recorded() -> None:
    with pytest.raises(
        ServerLost, match=r"server 1 \(node 5\) died at 0.5 s and does not come back"
    ) as caught:
        run("asp", [{"kind": "crash", "servers": [1], "at": 0.5}])
    assert caught.value.record.nodes["steps"].sum() > 0
    assert caught.value.record.duration == 0.5


def test_a_leaver_comes_back_too_and_ranks_that_never_come_do_nothing() -> None:
    faults = [
        {"kind": "leave", "ranks": [1], "step": 4, "back": 0.2},
        {"kind": "join", "ranks": [2], "at": "1 h"},
    ]
    record = run("asp", faults)
    assert events(record) == [("leave", 1), ("join", 1), ("ready", 1)]
    assert record.nodes["steps"][2] == 0
    assert record.nodes["idle"][2] == record.duration
    assert record.duration < 10


def test_a_server_may_be_away_for_long() -> None:
    """Far longer than anybody else does anything."""
    crash = {"kind": "crash", "servers": [0], "at": 0.5, "back": 30}
    record = run("asp", [crash])
    assert record.duration > 30
    assert (record.nodes["steps"][:4] == 20).all()


def test_who_is_to_join_while_it_is_leaving_comes_back_at_once() -> None:
    faults = [{"kind": "leave", "ranks": [1], "at": 1.2}, {"kind": "join", "ranks": [1], "at": 1.3}]
    record = run("asp", faults, cluster__compute__mean=1.0, cluster__compute__spread=0.0)
    assert events(record) == [("leave", 1), ("join", 1), ("ready", 1)]


def test_who_met_its_budget_does_not_come_again() -> None:
    faults = [{"kind": "leave", "ranks": [1], "at": 5}, {"kind": "join", "ranks": [1], "at": 6}]
    slow = [{"kind": "fixed", "ranks": [0], "factor": 10}]
    record = run("asp", faults, cluster__slowdowns=slow)
    assert record.duration > 6
    assert events(record) == []
    assert (record.nodes["steps"][:4] == 20).all()


@pytest.mark.parametrize("name", ["asp", "bsp", "gosgd"])
def test_a_run_with_faults_is_resumed_exactly(name: str, tmp_path: Path) -> None:
    faults: list[dict[str, Any]] = [{"kind": "churn", "crash": "0.5/s", "back": 0.2}]
    if name != "gosgd":
        faults.append({"kind": "crash", "servers": [0], "at": 0.8, "back": 0.1, "checkpoint_every": 0.3})
    scenario = chosen(name, faults, workload__parameters=12)
    whole = simulate(scenario, gradients=Numbers())
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == 45

    with pytest.raises(KeyboardInterrupt):
        simulate(scenario, gradients=Numbers(), checkpoints=Checkpoints(tmp_path / "run", stop=stop))
    driver = Faulty(plan(scenario), gradients=Numbers(), checkpoints=Checkpoints(tmp_path / "run"))
    reference = Faulty(plan(scenario), gradients=Numbers())
    resumed = driver.run()
    reference.run()
    for table, columns in whole.tables().items():
        for column, values in columns.items():
            assert values.tobytes() == resumed.tables()[table][column].tobytes(), f"{table}.{column}"
    for host, other in zip(driver.hosts, reference.hosts, strict=True):
        np.testing.assert_array_equal(host.node.params, other.node.params)


@pytest.mark.parametrize("name", ["gosgd", "dpsgd"])
def test_nodes_that_know_of_the_same_departures_share_what_they_know(name: str) -> None:
    """n sets of n workers each would fill the memory of a large run."""
    n, gone = 60, [3, 17, 40]
    faults = [{"kind": "leave", "ranks": [rank], "step": 4 + i} for i, rank in enumerate(gone)]
    made = chosen(name, faults, cluster__workers=n, run__steps=40, workload__parameters=1000)
    driver = Faulty(plan(made))
    seen: list[tuple[float, set[int]]] = []
    depart = driver.depart

    def watched(host: Any) -> None:
        if not seen and host.id not in gone:
            seen.extend((other.told, other.node.live) for other in driver.hosts if other.id not in gone)
        depart(host)

    driver.depart = watched  # type: ignore[method-assign]
    driver.run()
    assert {told for told, _ in seen} == {len(gone)}
    assert len({id(live) for _, live in seen}) == 1
    assert seen[0][1] == set(range(n)) - set(gone)


def test_a_server_edits_what_it_knows_and_makes_no_set_for_every_departure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every worker departs in the end: n sets of n would take n squared time."""

    def copied(*_: Any) -> set[int]:
        raise AssertionError("a set of all was made anew")

    monkeypatch.setattr(Roster, "view", copied)
    faults = [
        {"kind": "leave", "ranks": [3], "step": 4},
        {"kind": "crash", "ranks": [5], "step": 6, "back": 0.2},
    ]
    driver = Faulty(plan(chosen("asp", faults, cluster__workers=8, run__steps=20, cluster__servers__count=1)))
    (server,) = (host for host in driver.hosts if host.server)
    known, told = server.node.live, []
    depart = driver.depart

    def watched(host: Any) -> None:
        depart(host)
        told.append((host.id, set(known)))

    driver.depart = watched  # type: ignore[method-assign]
    driver.run()
    assert server.node.live is known
    assert known <= set(range(8)) - {3}
    assert len(told) >= 8
    assert 3 not in told[-1][1]
    assert driver.hosts[0].node.live is driver.hosts[1].node.live is not known


def test_a_joiner_knows_of_itself_before_the_others_and_then_shares_what_they_know() -> None:
    faults = [{"kind": "crash", "ranks": [1], "step": 3, "back": 0.5}, {"ranks": [5], "step": 20}]
    driver = Faulty(plan(chosen("gosgd", faults, cluster__workers=8, run__steps=60)))
    lives: list[set[int]] = []
    ended = driver.depart

    def watched(host: Any) -> None:
        lives.extend(other.node.live for other in driver.hosts if not lives or len(lives) < 8)
        ended(host)

    driver.depart = lambda host: watched(host) if host.node.step == 60 else ended(host)  # type: ignore[method-assign]
    driver.run()
    assert lives[0] == lives[1] == set(range(8)) - {5}
    assert lives[0] is lives[1]
