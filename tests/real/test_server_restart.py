"""Servers of real runs that are killed and come back: nothing confirmed is lost or applied twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq")

import numpy as np

import real
from core.record import EVENTS, Record
from real import checkpoint
from real.errors import TransportError
from scenarios.schema import Scenario
from tests.real.runs import tiny

CENTRALIZED = ["bsp", "asp", "ssp", "dssp", "easgd", "aladdin"]


def crashing(algorithm: Any = "asp", *faults: dict[str, Any], workers: int = 2, **changes: Any) -> Scenario:
    tree = tiny(algorithm, workers=workers, **changes).to_dict()
    tree["faults"] = [{"kind": "crash", "servers": [0], **fault} for fault in faults]
    return Scenario.from_dict(tree)


def reconciled(record: Record, steps: int, workers: int = 2) -> None:
    nodes = record.nodes
    assert nodes["steps"][:workers].tolist() == [steps] * workers
    assert not nodes["lost"].any()
    if nodes["applied"].any():
        assert (nodes["applied"] + nodes["pending"])[:workers].tolist() == [steps] * workers
        servers = len(nodes["steps"]) - workers
        seen = record.gradients["count"].sum() + nodes["pending"][workers:].sum()
        assert seen == steps * workers * servers


def happened(record: Record) -> list[tuple[int, str, int]]:
    events = record.events
    return [
        (node, EVENTS[event], life)
        for node, event, life in zip(events["node"], events["event"], events["incarnation"], strict=True)
    ]


@pytest.mark.parametrize("algorithm", CENTRALIZED)
def test_every_centralized_algorithm_goes_on(algorithm: str) -> None:
    fault = {"at": 0.5, "back": 0.2, "checkpoint_every": 0.1}
    record = real.train(crashing(algorithm, fault, run={"steps": 80}))
    reconciled(record, 80)
    assert happened(record) == [(2, "crash", 0), (2, "join", 1)]
    assert record.manifest["journals"]["2"]["replayed"] > 0
    assert record.manifest["flags"] == []


@pytest.mark.parametrize("every", [pytest.param(0.0, marks=pytest.mark.slow), 0.1])
def test_bsp_computes_the_same_as_without_a_crash(every: float) -> None:
    """With two workers a sum does not depend on who comes first, so all numbers agree to the bit."""
    slow = {"compute": {"mean": "50 ms"}}
    whole = real.train(tiny("bsp", run={"steps": 60, "compute": "native"}))
    faults = [{"at": at, "back": 0.1, "checkpoint_every": every} for at in (0.5, 2.5)]
    record = real.train(crashing("bsp", *faults, run={"steps": 60}, cluster=slow))
    assert [event for _, event, _ in happened(record)][:2] == ["crash", "join"]
    order = [np.lexsort((one.losses["step"], one.losses["node"])) for one in (whole, record)]
    assert whole.losses["loss"][order[0]].tolist() == record.losses["loss"][order[1]].tolist()
    assert whole.curves["loss"].tolist() == record.curves["loss"].tolist()


@pytest.mark.parametrize(
    ("moment", "at"),
    [
        pytest.param("idle", 0.25, marks=pytest.mark.slow),
        ("receiving", 0.9),
        pytest.param("sending", 1.7, marks=pytest.mark.slow),
    ],
)
def test_whatever_it_was_doing(moment: str, at: float) -> None:
    """One worker; a step takes 0.5 s, a message 0.8 s each way."""
    nbytes = 4 * (64 * 16 + 16 + 16 * 10 + 10)
    scenario = crashing(
        "asp", {"at": at, "back": 0.1}, workers=1, run={"steps": 3, "links": "paced"},
        cluster={"bandwidth": f"{8 * nbytes / 0.8} bit/s", "compute": {"mean": "500 ms"}},
    )  # fmt: skip
    record = real.train(scenario)
    reconciled(record, 3, workers=1)
    assert record.nodes["bytes_in"][1] == 3 * nbytes


@pytest.mark.slow
def test_two_servers_at_once_and_one_twice() -> None:
    faults = [
        {"at": 0.4, "back": 0.1, "servers": [0, 1], "checkpoint_every": 0.1},
        {"at": 4.5, "back": 0.1, "servers": [1], "checkpoint_every": 0.1},
    ]
    cluster = {"servers": {"count": 2}, "compute": {"mean": "50 ms"}}
    record = real.train(crashing("asp", *faults, cluster=cluster, run={"steps": 100}))
    reconciled(record, 100)
    lives = {node: life for node, _, life in happened(record)}
    assert lives == {2: 1, 3: 2}


def test_workers_that_die_and_come_back_meanwhile() -> None:
    tree = crashing("asp", {"at": 0.5, "back": 0.3}, workers=3, run={"steps": 150}).to_dict()
    tree["faults"] += [
        {"kind": "crash", "ranks": [1], "at": 0.55, "back": 0.2},
        {"kind": "crash", "ranks": [2], "at": 0.7},
    ]
    record = real.train(Scenario.from_dict(tree))
    assert record.nodes["steps"][0] == 150
    nodes = record.nodes
    accounted = (nodes["applied"] + nodes["pending"] + nodes["lost"])[:3]
    assert accounted.tolist() == nodes["steps"][:3].tolist()
    assert nodes["lost"][0] == 0
    assert (1, "ready", 1) in happened(record)


@pytest.mark.parametrize("algorithm", ["asp", "bsp"])
def test_who_had_come_back_before_the_server_did_is_answered_as_everybody_is(algorithm: str) -> None:
    """What was known of its life had its life added to it, which nobody lives: every answer was dropped."""
    tree = crashing(algorithm, {"at": 2.0, "back": 0.2}, workers=2, run={"steps": 150}).to_dict()
    tree["faults"] += [{"kind": "crash", "ranks": [1], "at": 0.4, "back": 0.2}]
    record = real.train(Scenario.from_dict(tree))
    own = happened(record)
    assert own.index((1, "ready", 1)) < own.index((2, "crash", 0))
    assert record.nodes["steps"][0] == 150
    accounted = (record.nodes["applied"] + record.nodes["pending"] + record.nodes["lost"])[:2]
    assert accounted.tolist() == record.nodes["steps"][:2].tolist()


def test_where_every_process_dies_the_run_goes_on_from_the_checkpoint() -> None:
    """Server and workers at once: what was confirmed is there, what had not been sent is lost."""
    scenario = crashing("asp", {"at": 0.6, "back": 0.3, "checkpoint_every": 0.1}, run={"steps": 120})
    tree = scenario.to_dict()
    tree["faults"].append({"kind": "crash", "ranks": [0, 1], "at": 0.6, "back": 0.5})
    record = real.train(Scenario.from_dict(tree))
    seen = happened(record)
    assert sorted(seen[:3]) == [(0, "crash", 0), (1, "crash", 0), (2, "crash", 0)]
    assert {(2, "join", 1), (0, "ready", 1), (1, "ready", 1)} <= set(seen)
    nodes = record.nodes
    assert record.manifest["complete"]
    assert (nodes["applied"] + nodes["pending"] + nodes["lost"])[:2].tolist() == nodes["steps"][:2].tolist()
    assert nodes["lost"][:2].max() <= 1


def test_one_that_is_down_when_all_workers_are_done_still_tells_what_it_has() -> None:
    record = real.train(crashing("aladdin", {"at": 0.6, "back": 1.0}, run={"seconds": 0.6}))
    nodes = record.nodes
    assert (nodes["applied"] + nodes["pending"])[:2].tolist() == nodes["steps"][:2].tolist()


def test_one_that_crashes_at_a_rate_may_come_back_at_a_rate() -> None:
    """Away for an exponential time, as the timetable says; nothing of the model moves meanwhile."""
    fault = {"kind": "churn", "crash": 0.5, "join": 4.0, "checkpoint_every": 0.1}
    record = real.train(crashing("asp", fault, run={"steps": 150, "seed": 1}))
    reconciled(record, 150)
    assert happened(record)[:2] == [(2, "crash", 0), (2, "join", 1)]
    assert record.manifest["flags"] == []


def test_without_return_the_run_ends_with_a_clear_error() -> None:
    with pytest.raises(TransportError, match=r"server 0 .* is gone .*its part of the model") as caught:
        real.train(crashing("asp", {"at": 0.4}, run={"steps": 500}))
    assert caught.value.record.nodes["steps"][:2].min() > 0


def test_one_that_dies_while_it_writes_a_checkpoint_leaves_none(tmp_path: Path) -> None:
    arrays = {"tensor 1": np.zeros(100_000, dtype=np.uint8)}
    first = checkpoint.save(tmp_path, 1, {"run": "a"}, {}, arrays)
    pid = os.fork()
    if pid == 0:
        try:
            checkpoint._sync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
            checkpoint.save(tmp_path, 2, {"run": "a"}, {}, arrays)
        finally:  # whatever happens, this process runs no other test
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    assert checkpoint.stored(tmp_path) == [first]


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of a megabyte for the run's folder."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root mounts file systems")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_ends_the_run_with_a_clear_error(small_disk: Path) -> None:
    scenario = crashing("asp", {"at": 100, "back": 1}, run={"steps": 2000}, workload={"hidden": [256]})
    with pytest.raises(TransportError, match=r"server 0 .* failed:\njournal .*No space left .*Make room"):
        real.train(scenario)
    assert not list(small_disk.iterdir())


def test_one_that_is_away_for_longer_than_the_heartbeat_timeout_is_taken_back() -> None:
    """Workers that wait for it notice its silence; nobody is cut off for that."""
    fault = {"at": 0.4, "back": 3.0}
    record = real.train(crashing("asp", fault, run={"steps": 60, "heartbeat_timeout": "1 s"}))
    reconciled(record, 60)
    away = record.events["time"][1] - record.events["time"][0]
    assert away >= 3.0
    assert record.manifest["lost"] == {}
