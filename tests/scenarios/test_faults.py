"""Faults as data: what is read, what is refused and how, and the times that rates give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scenarios
from aladdin.cli import main
from scenarios import Scenario, ScenarioError
from scenarios.faults import Fault, late, rate, returns
from scenarios.server_churn import keeper, late_servers
from scenarios.timetable import Timetable


def load(*faults: dict[str, Any], algorithm: str = "asp", **overrides: Any) -> Scenario:
    return scenarios.load("demo", {"algorithm.name": algorithm, "faults": list(faults), **overrides})


def test_faults_from_yaml_from_dict_and_from_python_are_equal() -> None:
    made = load(
        {"kind": "crash", "ranks": 3, "at": "1 min", "back": "5 s"}, {"kind": "churn", "crash": "1 per h"}
    )
    assert made.faults == (
        Fault("crash", ranks=(3,), at=60.0, back=5.0), Fault("churn", crash=1 / 3600)
    )  # fmt: skip
    assert Scenario.from_dict(made.to_dict()) == made
    assert made.to_dict()["faults"][0] == {"kind": "crash", "ranks": [3], "at": 60.0, "back": 5.0}


def test_ranks_may_be_ranges() -> None:
    crash, freeze = {"ranks": [0, "2 - 3"], "at": 2}, {"kind": "freeze", "ranks": "0-1", "at": 1, "back": 0.5}
    made = load(crash, freeze)
    assert [fault.ranks for fault in made.faults] == [(0, 2, 3), (0, 1)]
    assert Scenario.from_dict(made.to_dict()) == made
    slow = load(**{"cluster.slowdowns": [{"ranks": "1-2", "factor": 4}]}).cluster.slowdowns
    assert slow[0].ranks == (1, 2)


def test_a_scenario_without_faults_says_nothing_of_them() -> None:
    assert "faults" not in load().to_dict()


@pytest.mark.parametrize(
    ("text", "per_second"),
    [("0.5 per hour", 0.5 / 3600), ("2/min", 2 / 60), (3, 3.0), ("1e-3 per s", 1e-3), (0, 0)],
)
def test_rates(text: Any, per_second: float) -> None:
    assert rate(text, "crash") == pytest.approx(per_second, rel=1e-15)


CRASH = {"kind": "crash", "ranks": [1], "at": 3}
FREEZE = {"kind": "freeze", "ranks": [1], "at": 3, "back": 1}

BAD = [
    ([{"kind": "crsh", "ranks": [0], "at": 1}], "kind: 'crsh' — did you mean 'crash'?"),
    ([{**CRASH, "ranks": [9]}], "ranks: 9 is not valid; expected numbers below 4"),
    ([{"kind": "crash", "servers": [5], "at": 1}], "servers: 5 is not valid; expected numbers below 1"),
    ([{**CRASH, "ranks": "3-1"}], "ranks[0]: '3-1' is not valid; expected a range whose end is not"),
    ([{**CRASH, "ranks": [0, "1-2-3"]}], "ranks[1]: '1-2-3' is not valid; expected a whole number"),
    ([{**CRASH, "ranks": "1-9999999"}], "ranks[0]: '9999999' is not valid; expected a whole number of at"),
    ([{**CRASH, "ranks": ["0-2", 1]}], "ranks: (0, 1, 2, 1) is not valid; expected every number once"),
    ([{**CRASH, "ranks": "2-5"}], "ranks: 4 is not valid; expected numbers below 4"),
    ([{**CRASH, "at": -1}], "at: -1 is not valid; expected a finite time in seconds of at least 0"),
    ([{**CRASH, "step": 4}], "step: 4 is not valid; expected nothing beside at (3 s): one of the two"),
    ([{**CRASH, "back": 0}], "back: 0 is not valid; expected a finite time in seconds above 0"),
    ([{**CRASH, "ranks": [1, 1]}], "ranks: (1, 1) is not valid; expected every number once"),
    ([{"kind": "crash", "ranks": [1]}], "at: at or step is missing: when does this crash happen?"),
    ([{"kind": "leave", "at": 1}], "ranks: () is not valid; expected the ranks that this leave befalls"),
    ([{"kind": "join", "ranks": [1], "at": 0}], "at: 0.0 is not valid; expected a time above 0: who is"),
    ([{"kind": "join", "ranks": [1], "at": 1, "step": 1}], "step: 1 is not valid; expected nothing: kind"),
    ([{"kind": "leave", "servers": [0], "at": 1}], "faults: server 0 cannot leave at 1 s: it is"),
    ([{"kind": "leave", "servers": [1], "at": 1}], "servers: 1 is not valid; expected numbers below 1"),
    ([{"kind": "leave", "servers": [0], "step": 4}], "step: 4 is not valid; expected at (a time)"),
    ([{"kind": "leave", "servers": [0], "ranks": [1], "at": 1}], "servers: (0,) is not valid; expe"),
    ([{"kind": "join", "servers": [0], "at": 1, "back": 2}], "back: 2.0 is not valid; expected nothing"),
    ([{"kind": "join", "servers": [0], "at": 3}], "faults: all servers join later: one must be there"),
    ([{"kind": "churn", "servers": [0], "join": 1}], "faults: all servers join later: one must be there"),
    ([{"kind": "leave", "servers": [0], "at": 1, "checkpoint_every": 1}], "checkpoint_every: 1.0 is"),
    ([{"kind": "churn", "servers": [0], "leave": 1, "checkpoint_every": 1}], "nothing where no server"),
    ([{**CRASH, "servers": [0]}], "servers: (0,) is not valid; expected a fault of their own, without"),
    ([{**CRASH, "back": 2}, {**CRASH, "at": 5}], "faults: rank 1 cannot crash at 5 s: it is not there"),
    ([{"kind": "churn", "crash": 10**400}], "expected a rate of at least 0"),
    ([{"kind": "churn"}], "crash: 0.0 is not valid; expected a rate above 0 for crash, leave"),
    ([{"kind": "churn", "join": "1 per hour"}], "ranks: () is not valid; expected the ranks that start late"),
    ([{"kind": "churn", "crash": 1, "join": 2, "back": 3}], "join: 2.0 is not valid; expected nothing"),
    ([{"kind": "churn", "servers": [0], "ranks": [1], "crash": 1}], "servers: (0,) is not valid; expected a"),
    ([{"kind": "churn", "ranks": [0, 1, 2, 3], "join": 1}], "faults: all workers join later"),
    ([{**CRASH, "join": 1}], "join: 1.0 is not valid; expected nothing: kind crash has no such field"),
    ([{"kind": "churn", "crash": "-1 per hour"}], "crash: '-1 per hour' is not valid; expected a rate"),
    ([{"kind": "churn", "crash": "1 per year"}], "such as '0.5 per hour'; units: s, ms"),
    ([{"kind": "churn", "leave": 1e6}], "leave: 1000000.0 is not valid; expected a rate of at most 1000"),
    ([{**CRASH, "checkpoint_every": 3}], "checkpoint_every: 3.0 is not valid; expected nothing where no"),
    ([{"kind": "join", "ranks": [1], "at": 3}, {"kind": "join", "ranks": [1], "at": 5}],
     "faults: rank 1 joins at 5 s, but it has not left before and does not start late"),
    ([{**CRASH, "back": 1}, {"kind": "join", "ranks": [1], "at": 5}], "faults: rank 1 joins at 5 s, but"),
    ([CRASH, {**CRASH, "at": 5}], "faults: rank 1 cannot crash at 5 s: it is not there"),
    ([{**CRASH, "ranks": [0, 1, 2, 3]}], "faults: nobody is left at 3 s: all workers have gone by then"),
    ([{"kind": "leave", "ranks": [0, 1, 2, 3], "step": 2}], "faults: nobody is left in the end"),
    ([{"kind": "join", "ranks": [0, 1, 2, 3], "at": 2}], "faults: all workers join later"),
    ([{"kind": "freeze", "ranks": [1], "at": 3}], "back: back is missing: how long does this freeze last?"),
    ([{"kind": "cut", "servers": [0], "at": 3}], "back: back is missing: how long does this cut last?"),
    ([{**FREEZE, "back": 0}], "back: 0 is not valid; expected a finite time in seconds above 0"),
    ([{**FREEZE, "step": 2}], "step: 2 is not valid; expected nothing beside at (3 s): one of the two"),
    ([{"kind": "freeze", "ranks": [1], "back": 1}], "at: at or step is missing: when does this freeze"),
    ([{"kind": "cut", "ranks": [1], "back": 1}], "at: at is missing: when does this cut happen?"),
    ([{"kind": "cut", "ranks": [1], "back": 1, "step": 2}], "step: 2 is not valid; expected nothing: kind"),
    ([{"kind": "freeze", "at": 1, "back": 1}], "ranks: () is not valid; expected the ranks that this freeze"),
    ([{**FREEZE, "ranks": [4]}], "ranks: 4 is not valid; expected numbers below 4"),
    ([{"kind": "cut", "servers": [1], "at": 1, "back": 1}], "servers: 1 is not valid; expected numbers"),
    ([{**FREEZE, "crash": 1}], "crash: 1.0 is not valid; expected nothing: kind freeze has no such field"),
    ([{"kind": "freeze", "servers": [0], "at": 1, "back": 1, "checkpoint_every": 1}],
     "checkpoint_every: 1.0 is not valid; expected nothing: kind freeze has no such field"),
    ([CRASH, {**FREEZE, "at": 4}], "faults: rank 1 cannot freeze at 4 s: it is not there"),
    ([CRASH, {**FREEZE, "kind": "cut", "at": 4}], "faults: rank 1 cannot be cut off at 4 s: it is not there"),
    ([{**FREEZE, "back": 6}, {**CRASH, "at": 9}], "faults: rank 1 cannot crash at 9 s: it is not there"),
    ([{**FREEZE, "ranks": [0, 1, 2, 3], "back": 6}], "faults: nobody is left at 8 s: all workers have gone"),
    ([{"kind": "freeze", "ranks": [0, 1, 2, 3], "step": 2, "back": 6}], "faults: nobody is left in the end"),
    ([FREEZE, {"kind": "join", "ranks": [1], "at": 9}], "faults: rank 1 joins at 9 s, but it has not left"),
]  # fmt: skip


@pytest.mark.parametrize(("faults", "words"), BAD, ids=[words[:60] for _, words in BAD])
def test_what_cannot_happen_is_refused(faults: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load(*faults)
    assert str(caught.value).startswith("faults")
    assert words in str(caught.value)


TWO, THREE = {"cluster.servers.count": 2}, {"cluster.servers.count": 3}
GOES = {"kind": "leave", "servers": [1], "at": 5}
COMES = {"kind": "join", "servers": [1], "at": 8}

MOVES = [
    ([GOES, GOES | {"at": 6}], "server 1 cannot leave at 6 s: it is not there"),
    ([GOES | {"back": 2}, COMES], "server 1 joins at 8 s, but it has not left before and does not start"),
    ([GOES, COMES, COMES | {"at": 9}], "server 1 joins at 9 s, but it has not left before"),
    ([GOES, GOES | {"servers": [0], "at": 7}], "server 0 cannot leave at 7 s: it is the last one"),
    ([COMES, GOES | {"servers": [0]}], "server 0 cannot leave at 5 s: it is the last one, and somebody"),
    ([{"kind": "join", "servers": [0, 1], "at": 5}], "all servers join later: one must be there"),
    ([{"kind": "crash", "servers": [1], "at": 4, "back": 2}, GOES],
     "server 1 cannot leave at 5 s: it has crashed and is not back yet"),
]  # fmt: skip


@pytest.mark.parametrize(("faults", "words"), MOVES, ids=[words[:60] for _, words in MOVES])
def test_moves_of_servers_that_cannot_happen_are_refused(faults: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ScenarioError, match=r"^faults: ") as caught:
        load(*faults, **TWO)
    assert words in str(caught.value)


def test_servers_leave_and_join_by_schedule_and_by_rate() -> None:
    load(GOES | {"back": 2}, GOES | {"servers": [0], "at": 7.5}, **TWO)
    load(GOES, COMES, {"kind": "crash", "servers": [1], "at": 6, "back": 1}, **TWO)
    load(COMES, {"kind": "crash", "servers": [1], "at": 2, "back": 1}, GOES | {"at": 9}, **TWO)
    made = load({"kind": "churn", "servers": "0-1", "leave": "2 per hour", "back": "30 s"}, GOES, GOES, **TWO)
    assert made.faults[0] == Fault("churn", servers=(0, 1), leave=2 / 3600, back=30.0)
    assert Scenario.from_dict(made.to_dict()) == made
    load({"kind": "churn", "servers": [1], "crash": 1, "leave": 1, "join": 2, "checkpoint_every": 1}, **TWO)
    load(GOES, algorithm="easgd", **TWO)
    with pytest.raises(ScenarioError, match=r"servers: 1 .*expected nothing: gosgd has no servers"):
        load(GOES, algorithm="gosgd", **TWO)


def test_servers_that_come_need_no_algorithm_that_takes_in_workers() -> None:
    assert not returns(load(GOES | {"back": 2}, COMES | {"servers": [2]}, **THREE).faults)
    assert not returns([Fault("churn", servers=(1,), join=1.0)])


def test_which_servers_start_late() -> None:
    assert late_servers(load(COMES, **THREE).faults) == {1}
    assert late_servers(load(GOES, COMES, **THREE).faults) == set()
    assert late_servers(load(COMES | {"at": 3}, GOES, **THREE).faults) == {1}
    crash = {"kind": "crash", "servers": [1], "at": 2, "back": 1}
    assert late_servers(load(crash, COMES, **THREE).faults) == {1}, "its slice crashes, as a guest"
    assert late_servers(load({"kind": "churn", "servers": [1, 2], "join": 1}, **THREE).faults) == {1, 2}
    assert late(load(COMES, **THREE).faults) == set()


def test_a_slice_goes_where_fewest_are_and_then_to_the_next() -> None:
    assert keeper(1, {0, 2, 3}, [0, 2, 3]) == 2
    assert keeper(3, {0, 2}, [0, 2]) == 0, "cyclically"
    assert keeper(1, {0, 2, 3}, [0, 2, 2, 3]) == 3
    assert keeper(3, {0, 1, 2}, [0, 1, 2, 0]) == 1
    assert keeper(0, {5}, [5, 5, 5]) == 5


def test_arrivals_of_servers_keep_nobody_waiting() -> None:
    """A run in which all workers are gone does not go on for a server that is to come."""
    faults = [Fault("join", servers=(1,), at=8.0), Fault("churn", servers=(2,), join=1.0)]
    table = Timetable(faults, 4, seed=1)
    assert table.coming == 0
    assert sorted((table.pop().node, table.pop().node)) == [5, 6]
    assert (table.coming, table.next) == (0, np.inf)


def test_silence_is_borne_by_all_and_shorter_than_the_timeout_costs_nobody() -> None:
    everybody = {**FREEZE, "ranks": [0, 1, 2, 3], "back": 5}
    load(everybody, {**FREEZE, "kind": "cut"}, {"kind": "cut", "servers": [0], "at": "1 s", "back": "500 ms"})
    load({**everybody, "back": 6}, **{"run.heartbeat_timeout": 10})
    load({**FREEZE, "back": 6}, {"kind": "join", "ranks": [1], "at": 9})  # taken for dead at 8 s
    for name in ("dpsgd", "sgp", "arsgd"):
        load(FREEZE, {**FREEZE, "kind": "cut"}, algorithm=name)


@pytest.mark.parametrize("name", ["dpsgd", "sgp"])
def test_algorithms_that_take_in_nobody_say_so(name: str) -> None:
    load(CRASH, algorithm=name)
    with pytest.raises(ScenarioError, match=rf"faults\[0\].back: 1.0 .*{name} takes in nobody"):
        load({**CRASH, "back": 1}, algorithm=name)
    with pytest.raises(ScenarioError, match=rf"faults\[0\].kind: 'join' .*{name} takes in nobody"):
        load({"kind": "join", "ranks": [1], "at": 1}, algorithm=name)


def test_a_ring_of_messages_takes_in_nobody_and_has_no_servers() -> None:
    load(CRASH, algorithm="arsgd")
    with pytest.raises(
        ScenarioError, match=r"cluster.network.collective: 'messages' .*native where workers join"
    ):
        load({**CRASH, "back": 1}, algorithm="arsgd")
    with pytest.raises(ScenarioError, match=r"faults\[0\].servers: 0 .*arsgd has no servers"):
        load({"kind": "crash", "servers": [0], "at": 1}, algorithm="arsgd")


def test_the_command_line_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "demo", "--set", "faults=[{kind: crash, ranks: [9], at: 1}]"]) == 2
    assert "ranks: 9 is not valid; expected numbers below 4" in capsys.readouterr().err


def test_all_may_be_away_for_a_while_where_servers_keep_the_model() -> None:
    everybody = {"kind": "crash", "ranks": [0, 1, 2, 3], "at": 1, "back": 2}
    load(everybody)
    with pytest.raises(ScenarioError, match="nobody is left at 1 s"):
        load(everybody, algorithm="gosgd")


def test_who_starts_late() -> None:
    join = {"kind": "join", "ranks": [1], "at": 9}
    assert late(load(join).faults) == {1}
    assert late(load(CRASH, join).faults) == set()
    assert late(load({**join, "at": 3}, CRASH).faults) == {1}
    assert late(load(join, {"kind": "crash", "ranks": [1], "step": 3}).faults) == {1}
    assert late(load({"kind": "crash", "ranks": [1], "step": 3}, join).faults) == set()

    arrivals = {"kind": "churn", "ranks": [1, 2], "join": "2 per hour"}
    assert late(load(arrivals, join | {"ranks": [3]}).faults) == {1, 2, 3}
    assert late(load(arrivals | {"crash": "1 per hour"}).faults) == set()


def test_who_comes_by_rate_must_be_taken_in_too() -> None:
    for name in ("dpsgd", "sgp"):
        with pytest.raises(ScenarioError, match=rf"faults\[0\].join: 2.0 .*{name} takes in nobody"):
            load({"kind": "churn", "ranks": [1], "join": 2}, algorithm=name)


def test_all_may_go_where_somebody_comes_by_rate() -> None:
    load({"kind": "churn", "ranks": [1, 2, 3], "join": 2}, {"kind": "leave", "ranks": [0], "at": 50})


def times(workers: int, seconds: float, *faults: Fault) -> list[tuple[float, int]]:
    table, found = Timetable(faults, workers, seed=1), []
    while table.next <= seconds:
        event = table.pop()
        found.append((event.time, event.node))
    return found


def test_times_by_rate_are_in_order_exponential_and_each_ranks_own() -> None:
    often = Fault("churn", crash=2.0)
    few, many = times(5, 500.0, often), times(20, 500.0, often)
    assert few == sorted(few)
    assert few == [(time, node) for time, node in many if node < 5], "one rank's times are nobody else's"
    gaps = np.diff([time for time, node in many if node == 3])
    assert gaps.mean() == pytest.approx(0.5, rel=0.1)
    assert gaps.std() == pytest.approx(0.5, rel=0.1)


def test_arrivals_by_rate_are_exponential_and_happen_once() -> None:
    table = Timetable([Fault("churn", ranks=tuple(range(5, 405)), join=0.5, at=10.0)], 1000, seed=1)
    assert table.coming == 400
    found = [table.pop() for _ in range(400)]
    assert (table.coming, table.next) == (0, np.inf)
    assert {event.kind for event in found} == {"join"}
    assert sorted(event.node for event in found) == list(range(5, 405))
    waits = np.array([event.time for event in found]) - 10
    assert (np.diff(waits) >= 0).all()
    assert waits.mean() == pytest.approx(2, rel=0.15)
    assert waits.std() == pytest.approx(2, rel=0.15)


def test_who_goes_by_rate_may_come_by_rate() -> None:
    """Every absence has a length of its own; the times of going are those without it."""
    fixed = Timetable([Fault("churn", ranks=(0, 1), crash=1.0, back=3.0)], 4, seed=1)
    drawn = Timetable([Fault("churn", ranks=(0, 1), crash=1.0, join=0.25)], 4, seed=1)
    events = [(fixed.pop(), drawn.pop()) for _ in range(600)]
    assert [one.time for one, _ in events] == [other.time for _, other in events]
    assert {one.back for one, _ in events} == {3.0}
    away = np.array([other.back for _, other in events])
    assert len(set(away)) == 600
    assert away.mean() == pytest.approx(4, rel=0.15)
    assert away.std() == pytest.approx(4, rel=0.2)
