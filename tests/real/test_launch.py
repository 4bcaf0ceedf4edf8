"""What a launcher decides, without the processes."""

from __future__ import annotations

import subprocess
import sys
import time
from math import inf
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq")

from core.record import EVENTS
from real import launch
from real.faults import Faults
from real.interrupts import Interrupts
from real.member import Member
from scenarios.plan import plan
from scenarios.timetable import Event
from tests.real.runs import tiny


class Process:
    """A node's process, or the end of one: counts how often it was killed."""

    def __init__(self, pid: int = 0) -> None:
        self.pid, self.kills, self.exitcode = pid, 0, -9

    def kill(self) -> None:
        self.kills += 1

    def join(self, _: float) -> None:
        return


def launched(*faults: dict[str, Any], **changes: Any) -> Any:
    """A launcher whose two workers and one server run."""
    made = launch._Launch(
        plan(tiny("asp", **changes).override({"faults": list(faults)})), Faults({}, {}), None
    )
    made.zero = time.monotonic()
    pipe = SimpleNamespace(send_bytes=lambda _: None)
    made.members = [Member(node, Process(), pipe, state="running", lived=True) for node in made.plan.nodes]
    made.lives = list(made.members)
    return made


def test_what_is_due_after_the_end_wakes_nobody() -> None:
    """Else the launcher would turn round and round while the last tables come in."""
    made = launched({"kind": "churn", "crash": 100.0, "back": 1.0})
    made.zero -= 1000
    assert made.churn.next < 0
    made.churn.finished = True
    for member in made.members[:2]:
        member.state = "ended"
    assert made.churn.next == inf


def test_who_has_just_died_is_not_frozen() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    made = launched({"kind": "freeze", "ranks": [1], "at": 0.1, "back": 1.0})
    made.members[1].process.pid = gone.pid
    made.zero -= 1
    made.churn.go_on()
    assert made.churn.silence == pytest.approx(1.0, abs=0.5)


def test_a_refused_frame_of_a_former_life_is_held_against_nobody_else() -> None:
    made = launched()
    server, says = made.members[2], {"is": "refuses", "node": 1, "text": "a piece that does not follow"}
    made.members[1].life = 1
    made._heed(server, msgspec.msgpack.encode({**says, "life": 0}))
    assert made.members[1].process.kills == 0
    made._heed(server, msgspec.msgpack.encode({**says, "life": 1}))
    assert made.members[1].process.kills == 1
    assert made.left == {1: "a piece that does not follow"}


def test_the_end_is_given_the_time_that_links_and_silences_need() -> None:
    """Seconds; a model of 4840 bytes takes 4.84 s at 8 kbit/s, and each of two workers may await one."""
    allowed = {
        links: launched(cluster={"bandwidth": "8 kbit/s"}, run={"links": links})._ending_seconds()
        for links in ("native", "paced")
    }
    nbytes = 4 * (64 * 16 + 16 + 16 * 10 + 10)
    assert allowed["paced"] - allowed["native"] == pytest.approx(2 * nbytes / 1000)
    made = launched()
    made.churn._cuts.append((made.churn.now + 30, made.members[2]))
    assert made._ending_seconds() - allowed["native"] == pytest.approx(30, abs=1)


def test_who_was_about_to_freeze_when_the_run_is_stopped_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its word of that may lie in the pipe; frozen, it could not hand over what it has."""
    made = launched(
        {"kind": "freeze", "ranks": [0], "step": 3, "back": 600.0}, run={"heartbeat_timeout": 1e4}
    )
    struck = {"is": "struck", "kind": "freeze", "back": 600.0, "now": 0.0}
    said, states = [[msgspec.msgpack.encode(struck)], []], list[str]()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim:

        def read() -> list[bytes]:
            if not said:
                raise EOFError
            states.append(psutil.Process(victim.pid).status())
            return said.pop(0)

        for other in made.members[1:]:
            other.state = "done"
        member = made.members[0]
        member.process.pid = victim.pid
        member.pipe = SimpleNamespace(send_bytes=lambda _: None, read=read)
        monkeypatch.setattr(made, "_heard_from", lambda: [member])
        made._stop(Interrupts())
        victim.kill()
    assert len(states) == 2
    assert states[1] != psutil.STATUS_STOPPED


def test_who_does_not_come_because_a_server_has_died_is_not_awaited() -> None:
    """The others were told that it comes; if all is over before that, they would wait for its end.

    They are told "off" and not "left": it keeps its connections, for it may be met again.
    """
    made = launched(
        {"kind": "crash", "servers": [0], "at": 1.0, "back": 1.0}, cluster={"servers": {"count": 2}}
    )  # fmt: skip
    told: dict[int, list[dict[str, Any]]] = {node: [] for node in made.plan.nodes}
    for member in made.members:
        say = told[member.node].append
        member.pipe = SimpleNamespace(send_bytes=lambda data, say=say: say(msgspec.msgpack.decode(data)))
    before = made.members[1]
    before.state, before.process = "dead", None
    joiner = Member(1, Process(), before.pipe, 1, state="standby", lived=False)
    made.churn._meet(joiner)
    assert told[0][-1]["do"] == told[3][-1]["do"] == "meet"
    made.members[2].state = "dead"
    made.churn._put_off()
    assert made.members[1] is before
    assert [told[node][-1] for node in (0, 3)] == [{"do": "off", "node": 1}] * 2
    assert made.churn.standby == {1: joiner}


def test_who_is_quiet_hears_of_a_server_that_dies() -> None:
    """What it was half sent would keep its only slot, and the other server's last message would never end."""
    made = launched(cluster={"servers": {"count": 2}}, run={"server_restarts": 1})
    told: list[dict[str, Any]] = []
    quiet, server = made.members[1], made.members[2]
    quiet.state, made.finishing = "quiet", True
    quiet.pipe = SimpleNamespace(send_bytes=lambda data: told.append(msgspec.msgpack.decode(data)))
    made.spawn = lambda node, life, **_: Member(node, Process(), server.pipe, life, state="starting")
    made._lost(server, "killed by signal 9")
    assert told == [{"do": "parted", "node": 2}]
    told.clear()
    made._lost(made.members[0], "killed by signal 9")
    assert told == [{"do": "left", "node": 0}]


def test_a_cut_ends_with_its_process() -> None:
    """Who was about to leave has left: its heal would be another life's."""
    made = launched({"kind": "cut", "ranks": [1], "at": 1.0, "back": 5.0})
    member = made.members[1]
    member.pipe, member.state = SimpleNamespace(send_bytes=lambda _: None), "running"
    restored: list[int] = []
    made.bed = SimpleNamespace(alone=lambda _: True, cut=lambda _: None, restore=restored.append)
    made.churn._befall(Event(1.0, "cut", 1, 5.0, 0))
    made.churn.heed(member, {"is": "ended", "going": True, "now": 1.2})
    assert restored == [1]
    assert not made.churn._cuts
    assert [EVENTS[int(event)] for event in made.churn.events.values[2::4]] == ["cut", "leave"]
