"""Figures of runs in which workers come and go."""

from __future__ import annotations

from typing import Any

import pytest

import scenarios
from aladdin.cli import main
from analysis import churn, metrics
from core.record import EVENTS, KINDS, Record
from sim import simulate


def test_presence_counts_and_the_window() -> None:
    record = simulate(scenarios.load("demo", {
        "algorithm.name": "asp", "faults": [
            {"kind": "crash", "ranks": [1], "at": 1.0, "back": 0.5},
            {"kind": "join", "ranks": [2], "at": 2.0}, {"kind": "leave", "ranks": [3], "step": 10},
        ],
    }))  # fmt: skip
    there, ends = churn.presence(record), record.nodes["end"]
    assert there[0] == ends[0]
    assert there[1] == pytest.approx(ends[1] - 0.5)
    assert there[2] == pytest.approx(ends[2] - 2.0)
    assert there[3] == ends[3]
    found = churn.happened(record)
    assert found is not None
    assert (found["crashes"], found["leaves"], found["joins"], found["server_crashes"]) == (1, 1, 2, 0)
    samples = record.nodes["samples"].sum()
    assert found["samples_per_worker_second"] == pytest.approx(samples / sum(there.values()))
    assert 0.03 < found["seconds_to_join"] < 1.0
    assert churn.steadfast(record) == {0}
    window = metrics.window(record)
    own = record.steps["node"] == 0
    assert window.stop == record.steps["start"][own][-1], "the one who stayed"
    assert metrics.summary(record)["churn"] == found


def test_servers_that_leave_and_join_count_apart_from_workers() -> None:
    faults = [
        {"kind": "leave", "servers": [1], "at": 0.5, "back": 0.5},
        {"kind": "crash", "ranks": [1], "at": 0.4, "back": 0.5},
    ]
    record = simulate(
        scenarios.load("demo", {"algorithm.name": "asp", "cluster.servers.count": 2, "faults": faults})
    )
    found = churn.happened(record)
    assert found is not None
    assert (found["crashes"], found["leaves"], found["joins"]) == (1, 0, 1)
    assert (found["server_leaves"], found["hand_overs"], found["server_crashes"]) == (1, 2, 0)
    events = record.events
    join, ready = (events["time"][(events["node"] == 1) & (events["event"] == event)][0] for event in (2, 3))
    assert found["seconds_to_join"] == pytest.approx(ready - join), "of workers alone"
    assert "server leaves 1, slices handed over 2" in churn.line(found)


def test_without_faults_nothing_is_said() -> None:
    record = simulate(scenarios.load("demo", {"run.steps": 5}))
    assert churn.happened(record) is None
    assert "churn" not in metrics.summary(record)


def test_the_bundled_scenario_and_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "churn", "--algorithm", "asp"]) == 0
    out = capsys.readouterr().out
    assert "server crashes 1" in out
    assert "gradients lost" in out


def test_a_server_that_stays_away_ends_the_run_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "demo", "--set", "faults=[{kind: crash, servers: [0], at: 1}]"]) == 3
    assert "server 0 (node 4) died at 1 s and does not come back" in capsys.readouterr().err


def troubled(algorithm: str = "asp") -> Record:
    return simulate(scenarios.load("demo", {
        "algorithm.name": algorithm, "run.spans": True, "run.seconds": 6.0, "faults": [
            {"kind": "crash", "ranks": [1], "at": 3.0, "back": 2.0},
            {"kind": "freeze", "ranks": [2], "at": 2.0, "back": 1.5},
            {"kind": "join", "ranks": [3], "at": 1.0}, {"kind": "crash", "ranks": [0], "at": 5.5},
        ],
    }))  # fmt: skip


def test_absences_are_when_nodes_were_away_or_silent() -> None:
    record = troubled()
    assert churn.absences(record, range(5)) == [
        (0, 5.5, record.duration, "away"), (1, 3.0, 5.0, "away"), (2, 2.0, 3.5, "frozen"),
        (3, 0.0, 1.0, "away"),
    ]  # fmt: skip
    assert churn.absences(record, {3, 1}) == [(1, 3.0, 5.0, "away"), (3, 0.0, 1.0, "away")]
    assert churn.absences(simulate(scenarios.load("digits", {"run.numerics": False})), range(5)) == []


def befallen(*faults: dict[str, Any], **fields: Any) -> Record:
    chosen = {"algorithm.name": "asp", "run.seconds": 6.0, "run.spans": True, "faults": [*faults]}
    return simulate(scenarios.load("demo", {**chosen, "cluster.servers.count": 2, **fields}))


def test_who_is_held_up_twice_at_once_is_until_both_have_ended() -> None:
    freezes = [{"kind": "freeze", "ranks": [2], "at": at, "back": 3.0} for at in (1.0, 2.0)]
    record = befallen(*freezes, {"kind": "cut", "ranks": [2], "at": 4.5, "back": 0.75})
    assert churn.absences(record, [2]) == [(2, 1.0, 5.0, "frozen"), (2, 4.5, 5.25, "cut off")]
    happened = churn.happened(record)
    assert happened is not None
    assert happened["silent_seconds"] == pytest.approx(4.25), "both at once count once"


def test_who_is_held_up_when_a_run_is_stopped_is_until_then() -> None:
    record = befallen({"kind": "cut", "ranks": [2], "at": 3.0, "back": 2.0})
    stopped = record.events["event"] == EVENTS.index("heal")
    assert stopped.sum() == 1
    record.events = {name: column[~stopped] for name, column in record.events.items()}
    assert churn.absences(record, range(6)) == [(2, 3.0, record.duration, "cut off")]


def test_a_server_is_away_while_its_machine_is_down_but_not_while_its_slice_lives_elsewhere() -> None:
    crash = befallen({"kind": "crash", "servers": [0], "at": 2.0, "back": 1.0})
    assert churn.absences(crash, range(6)) == [(4, 2.0, 3.0, "away")]
    leave = befallen({"kind": "leave", "servers": [1], "at": 2.0, "back": 2.0})
    assert churn.absences(leave, range(6)) == []
    busy = (leave.spans["node"] == 5) & (leave.spans["kind"] == KINDS.index("transfer"))
    assert ((leave.spans["start"] > 2.1) & (leave.spans["end"] < 4.0) & busy).any()
    late = befallen({"kind": "join", "servers": [1], "at": 2.0})
    assert churn.absences(late, range(6)) == []


@pytest.mark.parametrize("algorithm", ["asp", "bsp"])
def test_spans_reach_up_to_a_crash_and_begin_again_after_it(algorithm: str) -> None:
    record = troubled(algorithm)
    own = record.spans["node"] == 1
    own &= record.spans["kind"] != KINDS.index("transfer")
    start, end = record.spans["start"][own], record.spans["end"][own]
    assert not ((start < 5.0) & (end > 3.0)).any()
    assert end[start < 3.0].max() == 3.0, "what it was about when it died"
    assert start[start >= 5.0].min() == 5.0


NATIVE = {"run.links": "native", "cluster.network.collective": "native", "algorithm.name": "arsgd"}
WORK = {"cluster.tensor_seconds": {"assign": "20 ms", "apply": "20 ms", "scale": "20 ms"}}
OVERLAP = {**NATIVE, "algorithm.options": {"overlap": "backward", "buckets": 4}}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "compute"),
        (WORK, "update"),
        (NATIVE, "receive"),
        ({**NATIVE, "cluster.compute.scale": [1, 1, 2, 1]}, "wait"),
        (OVERLAP, "compute"),
    ],
)
def test_what_a_node_that_dies_was_about_is_in_its_spans_up_to_then(
    fields: dict[str, Any], kind: str
) -> None:
    """It dies in the middle of the last span of that kind that begins within the first second."""
    chosen = {"algorithm.name": "asp", "cluster.servers.count": 1, **fields}
    whole = befallen(**chosen)
    spans = whole.spans
    own = (spans["node"] == 0) & (spans["kind"] == KINDS.index(kind)) & (spans["start"] < 1.0)
    last = spans["start"][own].argmax()
    start, end = float(spans["start"][own][last]), float(spans["end"][own][last])
    died = (start + end) / 2
    record = befallen({"kind": "crash", "ranks": [0], "at": died, "back": 1.0}, **chosen)
    spans = record.spans
    mine = (spans["node"] == 0) & (spans["end"] <= died) & (spans["kind"] != KINDS.index("transfer"))
    latest = spans["end"][mine].argmax()
    found = KINDS[spans["kind"][mine][latest]], spans["start"][mine][latest], spans["end"][mine][latest]
    assert found == (kind, pytest.approx(start), pytest.approx(died))


def test_a_life_without_spans_is_not_recorded() -> None:
    """A real worker that dies takes its spans along."""
    record = troubled()
    own = (record.spans["node"] == 1) & (record.spans["start"] < 3.0)
    record.spans = {name: column[~own] for name, column in record.spans.items()}
    assert churn.absences(record, range(5))[1:3] == [(1, 0.0, 3.0, "not recorded"), (1, 3.0, 5.0, "away")]


def test_who_dies_frozen_is_away_from_then_on() -> None:
    record = simulate(scenarios.load("demo", {
        "algorithm.name": "asp", "run.seconds": 6.0, "run.spans": True, "faults": [
            {"kind": "freeze", "ranks": [2], "at": 2.0, "back": 3.0},
            {"kind": "crash", "ranks": [2], "at": 3.0, "back": 1.0},
        ],
    }))  # fmt: skip
    assert churn.absences(record, range(5)) == [(2, 2.0, 3.0, "frozen"), (2, 3.0, 4.0, "away")]
