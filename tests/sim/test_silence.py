"""Nodes that are frozen or cut off: what it delays by how much, what is lost, what the record says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analysis.churn import happened, line, steadfast
from core.algorithms import ALGORITHMS
from core.record import Record
from sim.errors import ServerLost
from sim.network import Nic
from tests.sim.test_faults import JOINING, events, numbers, reconcile, run

EASY = {"cluster__compute": {"model": "constant", "mean": 0.1}, "cluster__workers": 2, "run__steps": 4,
        "workload__parameters": 12_500_000, "cluster__servers__count": 1, "cluster__bandwidth": "1 GB/s",
        "cluster__latency": 0, "cluster__tensor_rates": {}, "cluster__network__overhead": 0}  # fmt: skip
"""Steps take 0.1 s, and messages (50 MB at 1 GB/s) 0.05 s."""


def easy(*faults: dict[str, Any], name: str = "asp", **more: Any) -> Record:
    return run(name, list(faults), **EASY | more)


def of_worker(record: Record, rank: int, part: str) -> float:
    return float(record.nodes[part][rank])


NEVER = {"kind": "freeze", "ranks": [0], "at": 1000, "back": 1}


@pytest.mark.parametrize("name", list(ALGORITHMS))
@pytest.mark.parametrize("kind", ["freeze", "cut"])
def test_a_silence_within_the_timeout_loses_nothing(name: str, kind: str) -> None:
    record = run(name, [{"kind": kind, "ranks": [1], "at": 0.3, "back": 0.4}])
    reconcile(name, record)
    assert record.nodes["steps"][:4].tolist() == [20] * 4
    assert not record.nodes["lost"].any()
    assert events(record) == [(kind, 1), ({"freeze": "thaw", "cut": "heal"}[kind], 1)]
    assert record.events["time"].tolist() == [0.3, pytest.approx(0.7)]


@pytest.mark.parametrize("name", list(ALGORITHMS))
@pytest.mark.parametrize("kind", ["freeze", "cut"])
def test_who_is_silent_for_longer_is_taken_for_dead_and_gone_for_good(name: str, kind: str) -> None:
    record = run(name, [{"kind": kind, "ranks": [1], "at": 0.3, "back": 3}], run__heartbeat_timeout=2)
    reconcile(name, record)
    assert events(record) == [(kind, 1), ("crash", 1)]
    assert record.events["time"].tolist() == [0.3, 2.3]
    assert record.nodes["steps"][[0, 2, 3]].tolist() == [20] * 3


def test_a_freeze_lengthens_the_step_that_it_strikes_and_nothing_else() -> None:
    """ALADDIN never waits: its worker ends as much later as it was stopped."""
    before = easy(NEVER, name="aladdin")
    after = easy({"kind": "freeze", "ranks": [1], "at": 0.25, "back": 0.4}, name="aladdin")
    assert of_worker(after, 1, "compute") == pytest.approx(of_worker(before, 1, "compute") + 0.4)
    assert of_worker(after, 0, "compute") == of_worker(before, 0, "compute")


def test_a_freeze_by_step_is_one_at_that_step() -> None:
    record = easy({"kind": "freeze", "ranks": [1], "step": 2, "back": 0.5}, name="aladdin")
    rows = record.steps
    seconds = {
        int(s): e for n, s, e in zip(rows["node"], rows["step"], rows["compute"], strict=True) if n == 1
    }
    assert seconds == {
        0: pytest.approx(0.1),
        1: pytest.approx(0.1),
        2: pytest.approx(0.6),
        3: pytest.approx(0.1),
    }


@pytest.mark.parametrize("admission", ["fifo", 2, "fair"])
def test_a_cut_in_mid_message_stretches_it_by_its_length(admission: Any) -> None:
    """One worker: 0.1 s a step, 0.05 s there and back. The cut strikes a push, which waits and goes on."""
    one = {"cluster__workers": 1, "run__steps": 2, "cluster__network__admission": admission}
    assert easy({"kind": "cut", "ranks": [0], "at": 0.125, "back": 0.3}, **one).duration == pytest.approx(0.7)
    assert easy({"kind": "cut", "servers": [0], "at": 0.125, "back": 0.3}, **one).duration == pytest.approx(
        0.7
    )
    record = easy({"kind": "freeze", "servers": [0], "at": 0.175, "back": 0.3}, **one)
    assert record.duration == pytest.approx(0.7)
    assert of_worker(record, 0, "wait") == pytest.approx(0.3)
    assert of_worker(record, 0, "receive") == pytest.approx(0.1)


@pytest.mark.parametrize("admission", ["fifo", "fair"])
def test_latency_and_overhead_rest_too(admission: str) -> None:
    """The cut strikes in mid-latency (0.08 s), or in the midst of the overhead (0.02 s)."""
    slow = {"cluster__workers": 1, "run__steps": 1, "cluster__network__admission": admission,
            "cluster__latency": 0.04, "cluster__network__overhead": 0.02}  # fmt: skip
    before = easy(NEVER, **slow).duration
    for at in (0.15, 0.19):
        after = easy({"kind": "cut", "ranks": [0], "at": at, "back": 0.3}, **slow).duration
        assert after == pytest.approx(before + 0.3)


def test_a_message_under_way_keeps_its_slot_and_holds_up_others_under_fifo_alone() -> None:
    """Worker 0, frozen while it pushes, holds the slot; under ``fair`` the other has all of the link."""
    frozen = {"kind": "freeze", "ranks": [0], "at": 0.16, "back": 0.6}
    alone = {"run__steps": 1, "cluster__compute": {"model": "constant", "mean": 0.15}}
    held = easy(frozen, **alone).nodes["end"]
    free = easy(frozen, cluster__network__admission="fair", **alone).nodes["end"]
    assert held[1] > 0.16 + 0.6
    assert free[1] < 0.15 + 0.1 + 0.05 + 1e-9


def test_silences_that_overlap_are_one_and_add_up_to_death() -> None:
    cuts = [{"kind": "cut", "ranks": [1], "at": at, "back": 1} for at in (0.1, 0.9)]
    record = easy(*cuts, name="aladdin")
    assert events(record) == [("cut", 1), ("cut", 1), ("heal", 1), ("heal", 1)]
    assert happened(record)["silent_seconds"] == pytest.approx(1.8)  # type: ignore[index]
    record = easy(*cuts, name="aladdin", run__heartbeat_timeout=1.5)
    assert events(record)[-1] == ("crash", 1)
    assert record.events["time"][-1] == 1.6


def test_a_worker_that_has_met_its_budget_behind_a_cut_loses_what_it_could_not_deliver() -> None:
    record = easy(
        {"kind": "cut", "ranks": [1], "at": 0.05, "back": 9}, name="aladdin", run__heartbeat_timeout=3
    )
    reconcile("aladdin", record)
    assert record.nodes["steps"][:2].tolist() == [4, 4]
    assert record.nodes["lost"][:2].tolist() == [0, 4]


def test_a_server_that_is_silent_for_too_long_ends_the_run_with_a_word() -> None:
    with pytest.raises(
        ServerLost, match=r"server 0 \(node 2\) was silent for 5 s .*taken for dead at 5.05 s"
    ):
        easy({"kind": "freeze", "servers": [0], "at": 0.05, "back": 6})


def test_a_crash_ends_a_freeze_but_not_a_cut() -> None:
    for kind, ready in (("freeze", 0.5), ("cut", 2.1)):
        silent = {"kind": kind, "ranks": [1], "at": 0.1, "back": 2}
        crash = {"kind": "crash", "ranks": [1], "at": 0.3, "back": 0.1}
        record = easy(silent, crash, name="aladdin", run__steps=40)
        reconcile("aladdin", record)
        assert ("ready", 1) in events(record)
        at = record.events["time"][events(record).index(("ready", 1))]
        assert ready - 0.1 < at < ready + 0.3


def test_a_later_join_brings_a_new_process_with_working_links() -> None:
    faults = [{"kind": "cut", "ranks": [1], "at": 0.1, "back": 100}, {"kind": "join", "ranks": [1], "at": 1}]
    record = easy(*faults, run__heartbeat_timeout=0.5, run__steps=20)
    reconcile("asp", record)
    assert events(record) == [("cut", 1), ("crash", 1), ("join", 1), ("ready", 1)]


@pytest.mark.parametrize("name", [name for name in JOINING if ALGORITHMS[name].collective])
@pytest.mark.parametrize("kind", ["freeze", "cut"])
def test_a_native_all_reduce_rests_and_goes_on(name: str, kind: str) -> None:
    """Values too: silence changes none of them."""
    silent = numbers(name, [{"kind": kind, "ranks": [1], "at": 0.32, "back": 0.4}])
    undisturbed = numbers(name, [NEVER])
    for one, other in zip(silent.hosts, undisturbed.hosts, strict=True):
        np.testing.assert_array_equal(one.node.params, other.node.params)
    ends = [max(host.end for host in driver.hosts) for driver in (silent, undisturbed)]
    assert ends[0] == pytest.approx(ends[1] + 0.4, abs=0.1)


def test_a_step_in_pieces_is_stopped_between_its_pieces() -> None:
    options = {"algorithm__overlap": "backward", "algorithm__buckets": 4}
    before = run("arsgd", [NEVER], **options).duration
    after = run("arsgd", [{"kind": "freeze", "ranks": [1], "at": 0.31, "back": 0.4}], **options).duration
    assert after == pytest.approx(before + 0.4, abs=0.06)


def test_what_the_summary_says_and_that_a_frozen_worker_has_never_gone() -> None:
    record = easy({"kind": "freeze", "ranks": [1], "at": 0.25, "back": 0.4},
                  {"kind": "cut", "servers": [0], "at": 0.3, "back": 0.1}, name="aladdin")  # fmt: skip
    found = happened(record)
    assert found is not None
    assert (found["freezes"], found["cuts"]) == (1, 1)
    assert found["silent_seconds"] == pytest.approx(0.5)
    assert "freezes 1, cuts 1" in line(found)
    assert steadfast(record) == {0, 1}
    assert "freezes" not in happened(easy({"kind": "crash", "ranks": [0], "at": 0.1}))  # type: ignore[operator]


def test_a_message_cut_in_two_is_sent_again_whole_when_its_server_comes_back() -> None:
    """Half of a push is there when the worker is cut off; then the server crashes and has nothing of it."""
    faults = [
        {"kind": "cut", "ranks": [0], "at": 0.125, "back": 0.3},
        {"kind": "crash", "servers": [0], "at": 0.2, "back": 0.1},
    ]
    one = {"cluster__workers": 1, "run__steps": 2, "cluster__network__admission": "fair"}
    assert easy(*faults, **one).duration == pytest.approx(0.425 + 0.05 + 0.05 + 0.1 + 0.05 + 0.05)


def test_who_falls_silent_does_not_search_the_requests_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with a queue of n requests has n connections: each search would cost n."""

    class Unsearched(list[Any]):
        def __iter__(self) -> Any:
            raise AssertionError("the queue was searched")

    made = Nic.__init__

    def watched(nic: Nic, *arguments: Any) -> None:
        made(nic, *arguments)
        nic.requests, nic.blocked = Unsearched(), Unsearched()

    monkeypatch.setattr(Nic, "__init__", watched)
    freeze = {"kind": "freeze", "servers": [0], "at": 0.12, "back": 0.3}
    assert events(easy(freeze, cluster__workers=8)) == [("freeze", 8), ("thaw", 8)]
