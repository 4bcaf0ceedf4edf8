"""Faults of a scenario on real processes: who dies, leaves, comes late and comes back.

What a record can tell is held against what every schedule of faults promises (``tests.real.promises``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq")

import real
from analysis.churn import happened
from core.record import EVENTS, Record
from real import gather
from real.errors import TransportError
from scenarios.errors import ScenarioError
from scenarios.schema import Scenario
from tests.real.promises import must_reconcile, of
from tests.real.runs import tiny
from tests.real.test_faults import ROOT, _no_orphans  # noqa: F401  (a fixture: no process outlives its run)

LONG = 300
"""Steps, three seconds of them: enough for a process to come back on a busy machine."""

MANY = ["ssp", "dssp", "easgd", "aladdin", "aladdin_l1", "aladdin_l2", "gosgd"]


def slowly(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def befallen(algorithm: Any, *faults: dict[str, Any], workers: int = 3, **changes: Any) -> Scenario:
    """A tiny scenario with these faults."""
    return tiny(algorithm, workers=workers, **changes).override({"faults": list(faults)})


def trained(algorithm: Any, *faults: dict[str, Any], **changes: Any) -> Record:
    scenario = befallen(algorithm, *faults, **changes)
    record = real.train(scenario)
    must_reconcile(record)
    return record


@pytest.mark.parametrize("name", ["asp", "bsp", "adpsgd", *slowly(*MANY)])
def test_who_is_killed_comes_back_and_goes_on(name: str) -> None:
    record = trained(name, {"kind": "crash", "ranks": [1], "step": 5, "back": 0.2}, run={"steps": LONG})
    assert of(record, 1) == [("crash", 0), ("join", 1), ("ready", 1)]
    assert record.nodes["steps"][[0, 2]].tolist() == [LONG, LONG]
    rows = record.steps["step"][record.steps["node"] == 1]
    assert rows[-1] == LONG - 1, "the second life does what is left of the budget"
    assert 5 < record.nodes["steps"][1] <= LONG + 5
    assert record.nodes["lost"][1] <= 1 + (name.startswith("aladdin")) * 5
    assert record.manifest["lost"] == {}


@pytest.mark.parametrize("name", ["asp", *slowly("bsp", "gosgd", *MANY)])
def test_who_leaves_loses_nothing_and_may_come_back(name: str) -> None:
    record = trained(
        name, {"kind": "leave", "ranks": [1], "step": 5, "back": 0.2},
        {"kind": "leave", "ranks": [2], "at": 0.3}, run={"steps": LONG},
    )  # fmt: skip
    assert of(record, 1) == [("leave", 0), ("join", 1), ("ready", 1)]
    assert of(record, 2) == [("leave", 0)]
    assert record.nodes["lost"].sum() == 0
    assert 0 < record.nodes["steps"][2] < LONG
    assert record.nodes["steps"][0] == LONG


@pytest.mark.parametrize("name", ["bsp", *slowly("asp", "adpsgd", *MANY)])
def test_who_comes_late_begins_where_the_others_are(name: str) -> None:
    record = trained(name, {"kind": "join", "ranks": [1], "at": 0.4}, run={"steps": LONG})
    assert of(record, 1) == [("join", 0), ("ready", 0)]
    steps = record.steps["step"][record.steps["node"] == 1]
    assert steps[0] > 0
    assert steps[-1] == LONG - 1
    assert record.steps["start"][record.steps["node"] == 1].min() >= 0.4


@pytest.mark.parametrize("name", ["arsgd", *slowly("dpsgd", "sgp", "local_sgd", "diloco")])
def test_the_rest_go_on_without_those_who_go(name: str) -> None:
    """Algorithms that take nobody in bear crashes and leaves."""
    faults = {"kind": "crash", "ranks": [1], "step": 5}, {"kind": "leave", "ranks": [2], "step": 8}
    record = trained(name, *faults, workers=4, run={"steps": 30})
    assert of(record, 1) == [("crash", 0)]
    assert of(record, 2) == [("leave", 0)]
    assert record.nodes["steps"].tolist() == [30, 5, 8, 30]


NATIVE = {"network": {"collective": "native"}}
TOGETHER = 10 * 8
"""Steps of a run: after the last one local SGD and DiLoCo (H is 8) have just averaged."""


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> dict[int, bytes]:
    """What workers hand over at the end: their parameters' bytes, by rank."""
    found: dict[int, bytes] = {}
    assemble = gather.assemble

    def noted(plan: Any, tables: Any, params: dict[int, bytes], *rest: Any, **options: Any) -> Record:
        found.update({node: bytes(one) for node, one in params.items()})
        return assemble(plan, tables, params, *rest, **options)

    monkeypatch.setattr(gather, "assemble", noted)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "arsgd",
        *slowly("local_sgd", "diloco"),
        pytest.param({"name": "post_local_sgd", "h": 1}, id="post_local_sgd", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "crash", "step": 5, "back": 0.2},
        pytest.param({"kind": "leave", "step": 5, "back": 0.2}, marks=pytest.mark.slow),
        pytest.param({"kind": "join", "at": 0.4}, marks=pytest.mark.slow),
    ],
)
def test_an_all_reduce_takes_in_who_comes(
    name: Any, fault: dict[str, Any], replicas: dict[int, bytes]
) -> None:
    """With a step that all begin together; from then on replicas agree to the bit."""
    slow = {"compute": {"mean": "50 ms"}}
    record = trained(name, {**fault, "ranks": [1]}, cluster={**NATIVE, **slow}, run={"steps": TOGETHER})
    life = int(fault["kind"] != "join")
    assert of(record, 1)[-2:] == [("join", life), ("ready", life)]
    assert record.nodes["steps"][[0, 2]].tolist() == [TOGETHER] * 2
    steps = record.steps["step"][record.steps["node"] == 1]
    assert steps[-1] == TOGETHER - 1
    assert record.nodes["steps"][1] < TOGETHER
    assert len(replicas) == 3
    assert len(set(replicas.values())) == 1


def test_who_comes_when_nobody_meets_any_more_has_no_part_in_the_model(replicas: dict[int, bytes]) -> None:
    """The others never average, so they end before they stand; then nobody is left to learn from."""
    never = {"name": "local_sgd", "h": 1000}
    slow = {"compute": {"mean": "50 ms"}}
    fault = {"kind": "crash", "ranks": [1], "step": 5, "back": 0.1}
    record = trained(never, fault, cluster={**NATIVE, **slow}, run={"steps": TOGETHER})
    assert record.nodes["steps"].tolist() == [TOGETHER, 5, TOGETHER]
    assert of(record, 1) in ([("crash", 0), ("join", 1)], [("crash", 0)])
    assert set(replicas) == {0, 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arsgd", "local_sgd", "diloco"])
def test_an_all_reduce_bears_deaths_while_it_takes_in_others(name: str) -> None:
    """Two die again and again, one of them the one that is asked, and two come late."""
    faults = [
        {"kind": "churn", "ranks": [0, 1], "crash": 0.3, "back": 0.1},
        {"kind": "join", "ranks": [3, 4], "at": 1.0},
    ]
    record = trained(name, *faults, workers=5, cluster=NATIVE, run={"steps": 4 * TOGETHER})
    assert record.nodes["steps"][2] == 4 * TOGETHER
    assert record.manifest["lost"] == {}
    assert ("ready", 0) in of(record, 3)
    assert ("ready", 0) in of(record, 4)


@pytest.mark.slow
def test_an_all_reduce_whose_workers_have_all_died_begins_anew_with_who_comes() -> None:
    faults = [
        {"kind": "crash", "ranks": [0, 1], "step": 5},
        {"kind": "crash", "ranks": [2], "step": 20, "back": 0.1},
    ]
    record = trained("arsgd", *faults, cluster=NATIVE, run={"steps": TOGETHER})
    assert of(record, 2) == [("crash", 0), ("join", 1), ("ready", 1)]
    assert record.nodes["steps"].tolist() == [5, 5, 20 + TOGETHER]


# ---- the moment at which it strikes ------------------------------------------------------------


def test_killed_while_it_computes_its_gradient_has_never_been() -> None:
    """Its first step takes ten times as long as it lives."""
    slow = [{"kind": "fixed", "ranks": [1], "factor": 1000}]
    record = trained(
        "asp", {"kind": "crash", "ranks": [1], "at": 1.0}, cluster={"slowdowns": slow}, run={"steps": 150}
    )
    assert record.nodes["steps"].tolist() == [150, 0, 150, 0]
    assert record.nodes["lost"].sum() == 0


def test_killed_amid_a_message_what_had_come_of_it_is_dropped() -> None:
    """A gradient needs two seconds on its link; that of worker 0 comes after it."""
    slow = [{"kind": "fixed", "ranks": [0], "factor": 30}]
    record = trained(
        "asp", {"kind": "crash", "ranks": [1], "at": 1.0},
        workers=2, cluster={"bandwidth": "20 kbit/s", "slowdowns": slow}, run={"steps": 1, "links": "paced"},
    )  # fmt: skip
    assert record.nodes["steps"].tolist() == [1, 1, 0]
    assert record.nodes["applied"].tolist() == [1, 0, 1]
    assert record.nodes["lost"].tolist() == [0, 1, 0]
    assert record.nodes["messages_in"][2] == 1


def test_killed_while_it_waits_its_gradient_counts() -> None:
    """Under BSP it waits for worker 0, which takes three seconds for a step."""
    slow = [{"kind": "fixed", "ranks": [0], "factor": 300}]
    record = trained(
        "bsp", {"kind": "crash", "ranks": [1], "at": 1.5}, cluster={"slowdowns": slow}, run={"steps": 2}
    )
    assert record.nodes["steps"].tolist() == [2, 1, 2, 0]
    assert record.nodes["applied"].tolist() == [2, 1, 2, 5]
    assert record.nodes["lost"].sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["asp", "gosgd", "bsp"])
def test_killed_again_and_again_every_life_is_accounted_for(name: str) -> None:
    faults = [{"kind": "crash", "ranks": [1], "step": step, "back": 0.05} for step in (10, 11, 12)]
    record = trained(name, *faults, run={"steps": 2 * LONG})
    found = of(record, 1)
    assert [what for what in found if what[0] == "crash"] == [("crash", 0), ("crash", 1), ("crash", 2)]
    assert found[-2:] == [("join", 3), ("ready", 3)]
    assert record.nodes["lost"][1] <= 3


@pytest.mark.parametrize("name", ["bsp", *slowly("asp", "adpsgd", "arsgd", *MANY)])
def test_who_is_frozen_for_a_while_goes_on_and_nothing_is_lost(name: str) -> None:
    faults = (
        {"kind": "freeze", "ranks": [1], "at": 0.3, "back": 0.5},
        {"kind": "freeze", "ranks": [0], "step": 9, "back": 0.2},
    )
    record = trained(name, *faults, run={"steps": 60, "heartbeat_timeout": "30 s"})
    assert of(record, 1) == of(record, 0) == [("freeze", 0), ("thaw", 0)]
    assert record.nodes["steps"][:3].tolist() == [60] * 3
    assert record.nodes["lost"].sum() == 0
    assert record.manifest["lost"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["asp", "bsp", "gosgd", "arsgd"])
def test_who_is_frozen_for_too_long_is_taken_for_dead_for_good(name: str) -> None:
    fault = {"kind": "freeze", "ranks": [1], "step": 5, "back": 8.0}
    record = trained(name, fault, run={"steps": 700, "heartbeat_timeout": "2 s"})
    assert of(record, 1) == [("freeze", 0), ("crash", 0)]
    assert "silent for 2 s" in record.manifest["lost"]["1"]
    assert record.nodes["steps"][:3].tolist() == [700, 5, 700]


def test_silences_that_overlap_each_begin_and_end() -> None:
    """As in simulations: else the seconds of silence would count to the end of the run."""
    record = trained(
        "bsp",
        {"kind": "freeze", "ranks": [1], "at": 0.2, "back": 0.6},
        {"kind": "freeze", "ranks": [1], "at": 0.4, "back": 0.8},
        {"kind": "cut", "ranks": [0], "at": 0.2, "back": 0.8},
        {"kind": "cut", "ranks": [0], "at": 0.4, "back": 0.3},
        run={"steps": 60, "heartbeat_timeout": "30 s"},
    )
    assert of(record, 1) == [("freeze", 0), ("freeze", 0), ("thaw", 0), ("thaw", 0)]
    assert of(record, 0) == [("cut", 0), ("cut", 0), ("heal", 0), ("heal", 0)]
    times = {node: record.events["time"][record.events["node"] == node] for node in (0, 1)}
    silent = sum(float(at[-1] - at[0]) for at in times.values())
    found = happened(record)
    assert found is not None
    assert found["silent_seconds"] == pytest.approx(silent)
    assert record.nodes["steps"][:3].tolist() == [60] * 3


def test_servers_may_freeze_as_well() -> None:
    fault = {"kind": "freeze", "servers": [0], "at": 0.3, "back": 0.5}
    record = trained("asp", fault, run={"steps": 60, "heartbeat_timeout": "30 s"})
    assert of(record, 3) == [("freeze", 0), ("thaw", 0)]
    assert record.nodes["applied"][3] == 180


# ---- the end -----------------------------------------------------------------------------------


def test_where_all_are_killed_the_error_says_who_and_keeps_what_there_is() -> None:
    scenario = befallen(
        "asp",
        {"kind": "churn", "crash": 5.0},
        workers=2,
        run={"steps": 5000},
    )
    with pytest.raises(TransportError, match="all workers are gone") as caught:
        real.train(scenario)
    said, record = str(caught.value), caught.value.record
    assert "worker 0 (process" in said
    assert "worker 1 (process" in said
    assert "SIGKILL" in said
    assert "Start the run again" in said
    assert record is not None
    assert not record.manifest["complete"]
    assert record.manifest["flags"][0].startswith("incomplete: all workers are gone")
    must_reconcile(record)
    assert len(record.events["time"]) == 2


def test_where_all_are_gone_for_a_while_servers_wait_and_the_run_goes_on() -> None:
    faults = {"kind": "crash", "ranks": [0, 1], "step": 5, "back": 0.5}
    record = trained("asp", faults, workers=2, run={"steps": LONG})
    assert of(record, 0) == of(record, 1) == [("crash", 0), ("join", 1), ("ready", 1)]
    assert record.events["event"].tolist()[:2] == [EVENTS.index("crash")] * 2, "nobody was there in between"
    assert record.nodes["applied"][2] + record.nodes["lost"].sum() == record.nodes["steps"].sum()


def test_without_servers_they_begin_anew() -> None:
    faults = {"kind": "crash", "ranks": [0, 1], "step": 5, "back": 0.3}
    record = trained("gosgd", faults, workers=2, run={"steps": 40})
    assert max(record.nodes["steps"].tolist()) == 45
    assert (record.curves["accuracy"] > 0).all()


def test_who_was_to_come_after_the_end_does_not() -> None:
    record = trained("asp", {"kind": "crash", "ranks": [1], "step": 5, "back": 600.0}, run={"steps": 40})
    assert of(record, 1) == [("crash", 0)]
    assert record.nodes["steps"].tolist()[:3] == [40, 5, 40]


def test_rates_strike_at_the_simulators_times() -> None:
    """The timetable is shared; what a machine adds is lateness."""
    from scenarios.timetable import Timetable

    scenario = befallen("asp", {"kind": "churn", "crash": 0.8, "back": 0.1}, run={"seconds": 2.5, "seed": 4})
    record = real.train(scenario)
    must_reconcile(record)
    timetable, due = Timetable(scenario.faults, 3, scenario.run.seed), []
    while timetable.next < 2.4:
        due.append(timetable.pop())
    crashes = record.events["event"] == EVENTS.index("crash")
    found = list(zip(record.events["time"][crashes], record.events["node"][crashes], strict=True))
    assert found
    for time, node in found:  # one that finds nobody there does nothing, so not all of them are found
        assert any(event.node == node and event.time <= time for event in due)
    first = due[0]
    assert found[0][1] == first.node
    assert found[0][0] >= first.time


@pytest.mark.parametrize(
    ("algorithm", "fault", "says"),
    [
        ("arsgd", {"kind": "cut", "ranks": [0], "at": 1.0, "back": 1.0}, r"faults\[0\]\.kind: 'cut'"),
        ("sgp", {"kind": "crash", "ranks": [0], "at": 1.0, "back": 1.0}, r"faults\[0\]\.back: .*in nobody"),
        ("asp", {"kind": "leave", "servers": [0], "at": 1.0}, r"\]\.kind: 'leave'.* crash, .*simulate"),
        ("asp", {"kind": "join", "servers": [1], "at": 1.0}, r"\]\.kind: 'join'.* crash, .*simulate"),
        ("asp", {"kind": "churn", "servers": [0], "leave": 1.0}, r"\]\.leave: 1.0.* crash at a rate"),
        ("asp", {"kind": "churn", "servers": [0], "crash": 1.0, "leave": 0.5, "join": 1.0}, r"\.leave: 0\.5"),
        ("asp", {"kind": "churn", "servers": [0], "join": 1.0}, r"\]\.join: 1.0.* beside crash, a rate"),
    ],
)  # fmt: skip
def test_what_real_runs_do_not_play_is_refused(algorithm: str, fault: dict[str, Any], says: str) -> None:
    cluster: dict[str, Any] = {"network": {"collective": "native" if algorithm == "arsgd" else "messages"}}
    cluster["servers"] = {"count": 2}
    with pytest.raises(ScenarioError, match=says):
        real.train(befallen(algorithm, fault, cluster=cluster))


def test_the_command_line_keeps_the_record_and_exits_with_3(tmp_path: Path) -> None:
    import yaml

    file, out = tmp_path / "killed.yaml", tmp_path / "out"
    tree = befallen("asp", {"kind": "churn", "crash": 5.0}, workers=2, run={"steps": 5000}).to_dict()
    file.write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "aladdin", "train", str(file), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 3, done.stderr
    assert "all workers are gone" in " ".join(done.stderr.split())
    from analysis.store import read

    must_reconcile(read(out))
    assert np.isfinite(read(out).nodes["end"]).all()


def orphaned(folder: Path, fault: dict[str, Any], **run: Any) -> tuple[list[psutil.Process], list[str]]:
    """All processes of a run under ``fault`` whose parent is killed amid it, and what state each was in.

    SIGKILL leaves the parent no time to tell them. By then 100 steps are done: the fault has long struck.
    """
    script = folder / "parent.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import real
            from tests.real.test_churn import befallen

            if __name__ == "__main__":
                told = lambda done, _: print(done, flush=True)
                run = {{"seconds": 600, **{run!r}}}
                real.train(befallen("asp", {fault!r}, run=run), on_progress=told)
            """
        )
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        while int(parent.stdout.readline()) < 100:
            pass
        family = psutil.Process(parent.pid).children(recursive=True)
        states = [one.status() for one in family]
        parent.kill()
    return family, states


@pytest.mark.slow
def test_processes_that_wait_to_come_back_end_with_their_parent_too(tmp_path: Path) -> None:
    """Worker 1 is killed, its next life waits."""
    family, _ = orphaned(tmp_path, {"kind": "crash", "ranks": [1], "step": 3, "back": 600.0})
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def test_who_is_frozen_ends_with_its_parent_too(tmp_path: Path) -> None:
    """Stopped, it cannot find out by itself that its launcher is gone."""
    fault = {"kind": "freeze", "ranks": [1], "step": 3, "back": 600.0}
    family, states = orphaned(tmp_path, fault, heartbeat_timeout="1000 s")
    _, alive = psutil.wait_procs(family, timeout=20)
    for one in alive:
        one.kill()
    assert psutil.STATUS_STOPPED in states
    assert not alive
