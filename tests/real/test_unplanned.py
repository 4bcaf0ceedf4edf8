"""Servers of real runs that die of what nobody planned, and come back: killed by their PID, from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("zmq")

import real
from analysis import store
from core.record import Record
from real import launch
from real.errors import TransportError
from real.member import Member
from scenarios.schema import Scenario
from tests.real.promises import must_reconcile, of
from tests.real.runs import tiny
from tests.real.striking import Spawned, kill, noting, striking
from tests.real.test_faults import ROOT, _no_orphans  # noqa: F401  (a fixture: no process outlives its run)

SERVER = 2
"""The node that is the first server, of two workers."""

CENTRALIZED = ["asp", "bsp", "ssp", "dssp", "easgd", "aladdin", "aladdin_l1", "aladdin_l2"]


@pytest.fixture
def spawned() -> Iterator[Spawned]:
    with noting() as found:
        yield found


def killing(spawned: Spawned, *moments: int, server: int = SERVER) -> Callable[[int, int], None]:
    """To be told of progress: kills the server's latest process when so many steps are done."""
    due = sorted(moments, reverse=True)

    def told(done: int, _: int) -> None:
        latest = spawned[server][-1]
        if due and done >= due[-1] and latest.state == "running":
            due.pop()
            kill(latest)

    return told


def restarting(algorithm: Any = "asp", restarts: int = 3, **changes: Any) -> Scenario:
    run = {"server_restarts": restarts, "checkpoint_every": 0.1, "steps": 80, **changes.pop("run", {})}
    return tiny(algorithm, run=run, **changes)


def nothing_lost(record: Record, steps: int, workers: int = 2) -> None:
    """Every gradient of every worker was applied, or is held, once on each server."""
    must_reconcile(record)
    nodes = record.nodes
    assert nodes["steps"][:workers].tolist() == [steps] * workers
    assert not nodes["lost"].any()
    assert record.manifest["lost"] == {}
    if not nodes["applied"].any():  # parameters are exchanged, no gradients
        return
    assert (nodes["applied"] + nodes["pending"])[:workers].tolist() == [steps] * workers
    seen = record.gradients["count"].sum() + nodes["pending"][workers:].sum()
    assert seen == steps * workers * (len(nodes["steps"]) - workers)


FEW = ("asp", "aladdin")


@pytest.mark.parametrize(
    "algorithm",
    [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in CENTRALIZED],
)
def test_a_killed_server_comes_back_and_nothing_is_lost_or_applied_twice(
    algorithm: str, spawned: Spawned
) -> None:
    record = real.train(restarting(algorithm), on_progress=killing(spawned, 30))
    nothing_lost(record, 80)
    assert of(record, SERVER) == [("crash", 0), ("join", 1)]
    assert record.manifest["journals"][str(SERVER)]["replayed"] > 0
    (flag,) = record.manifest["flags"]
    assert flag.startswith("server 0 died 1 time of what nobody had planned (last: its process was ended by")


def test_it_may_die_again_and_while_it_starts(spawned: Spawned, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second life is killed before it is ready, the third when all others have been told of it."""
    meet = launch.churn.Churn._meet

    def struck(self: Any, joiner: Member) -> None:
        if joiner.life == 2:
            kill(joiner)
            joiner.process.join()  # so that its end is heard before the others' answers
        meet(self, joiner)

    prepare = launch.churn.Churn.prepare

    def prepared(self: Any, node: int, life: int) -> None:
        prepare(self, node, life)
        if life == 1:
            kill(spawned[node][-1])

    monkeypatch.setattr(launch.churn.Churn, "_meet", struck)
    monkeypatch.setattr(launch.churn.Churn, "prepare", prepared)
    record = real.train(restarting("asp", 4, run={"steps": 150}), on_progress=killing(spawned, 30, 200))
    nothing_lost(record, 150)
    assert of(record, SERVER) == [("crash", 0), ("join", 3), ("crash", 3), ("join", 4)]
    assert record.manifest["flags"][0].startswith("server 0 died 4 times")


def test_it_may_die_when_the_training_is_over(spawned: Spawned, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its part of the model is still to be handed over."""
    finish = launch._Launch.finish

    def struck(self: launch._Launch, members: Any) -> None:
        finish(self, members)
        if len(spawned[SERVER]) == 1:
            kill(spawned[SERVER][0])

    monkeypatch.setattr(launch._Launch, "finish", struck)
    record = real.train(restarting("asp", 1, run={"steps": 20}))
    nothing_lost(record, 20)
    assert record.manifest["complete"]
    assert len(record.curves["loss"]) == 1


def test_too_many_deaths_end_the_run_with_a_clear_error(spawned: Spawned) -> None:
    scenario = restarting("asp", 1, run={"steps": 500})
    says = r"server 0 .* is gone .*as often as run\.server_restarts allows \(1\)"
    with pytest.raises(TransportError, match=says) as caught:
        real.train(scenario, on_progress=killing(spawned, 20, 100))
    record = caught.value.record
    assert of(record, SERVER) == [("crash", 0), ("join", 1), ("crash", 1)]
    assert not record.manifest["complete"]
    assert record.nodes["steps"][:2].min() > 0


def test_one_that_falls_silent_is_killed_and_comes_back() -> None:
    scenario = restarting("asp", run={"heartbeat_timeout": "1 s"})
    record = real.train(scenario, stall={SERVER: 20})
    nothing_lost(record, 80)
    assert of(record, SERVER) == [("crash", 0), ("join", 1)]
    assert "was silent for 1 s" in record.manifest["flags"][0]


def test_one_whose_silence_was_planned_does_not_come_back() -> None:
    """As in a simulation of the same faults, which knows nothing of restarts."""
    fault = {"kind": "freeze", "servers": [0], "at": 0.3, "back": 30.0}
    scenario = restarting("asp", run={"heartbeat_timeout": "1 s", "steps": 500})
    with pytest.raises(TransportError, match=r"silent for 1 s.*a planned silence of it was too long"):
        real.train(scenario.override({"faults": [fault]}))


def test_one_that_fails_by_itself_does_not_come_back() -> None:
    """It would fail again."""
    with pytest.raises(TransportError, match="ZeroDivisionError: a mistake of the server"):
        real.train(restarting("tests.real.stuck:FaultyServer"))


@pytest.mark.slow
def test_planned_and_unplanned_deaths_of_servers_and_workers(spawned: Spawned) -> None:
    """Server 0 crashes as planned, server 1 by itself, worker 1 twice meanwhile."""
    faults = [
        {"kind": "crash", "servers": [0], "at": 0.5, "back": 0.2, "checkpoint_every": 0.1},
        {"kind": "crash", "ranks": [1], "at": 0.6, "back": 0.1},
        {"kind": "crash", "ranks": [1], "at": 5.0, "back": 0.1},
    ]
    scenario = restarting("asp", run={"steps": 300}, cluster={"servers": {"count": 2}})
    told = killing(spawned, 40, server=SERVER + 1)
    record = real.train(scenario.override({"faults": faults}), on_progress=told)
    must_reconcile(record)
    assert of(record, SERVER) == of(record, SERVER + 1) == [("crash", 0), ("join", 1)]
    assert record.nodes["steps"][0] == 300
    assert record.nodes["lost"][0] == 0
    assert len(record.manifest["flags"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_servers_are_killed_at_any_moment_again_and_again(seed: int, spawned: Spawned) -> None:
    algorithm, count, steps = CENTRALIZED[seed % len(CENTRALIZED)], 1 + seed // len(CENTRALIZED), 300
    every = 0.1 if seed % 3 else 0.0
    scenario = restarting(
        algorithm, 1000, cluster={"servers": {"count": count}}, workload={"hidden": [256]},
        run={"steps": steps, "seed": seed, "checkpoint_every": every},
    )  # fmt: skip
    begun = threading.Event()  # processes that die while the first ones start end the run
    with striking(spawned, begun, list(range(SERVER, SERVER + count)), seed) as killed:
        record = real.train(scenario, on_progress=lambda done, _: begun.set() if done else None)
    nothing_lost(record, steps)
    assert killed
    assert record.manifest["complete"]


def test_the_command_succeeds_though_a_server_was_killed(tmp_path: Path) -> None:
    """By its PID, from another process: it is the one that writes the server's journal."""
    given, out = tmp_path / "scenario.yaml", tmp_path / "out"
    given.write_text(yaml.safe_dump(restarting("asp", run={"steps": 150}).to_dict()))
    command = [sys.executable, "-m", "aladdin", "train", str(given), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        try:
            os.kill(_writer(parent, tmp_path), signal.SIGKILL)
            told = "".join(parent.communicate(timeout=120))
        finally:
            parent.kill()
    assert parent.returncode == 0, told
    assert "server 0 died 1 time of what nobody had planned" in told
    record = store.read(out)
    nothing_lost(record, 150)
    assert of(record, SERVER) == [("crash", 0), ("join", 1)]


def _writer(parent: Any, folder: Path) -> int:
    """The process that has server 0's journal open, once there is something in it; bounded."""
    end = time.monotonic() + 120
    while time.monotonic() < end and parent.poll() is None:
        for journal in folder.glob(f"aladdin-*/server-{SERVER}/records"):
            if journal.stat().st_size > 10_000:
                for process in psutil.Process(parent.pid).children(recursive=True):
                    with suppress(psutil.Error):
                        if str(journal) in {file.path for file in process.open_files()}:
                            return process.pid
        time.sleep(0.02)
    raise AssertionError(f"nobody wrote a journal: {parent.poll()}")
