"""What a node's process says and asks, without the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zmq")

from core.effects import Compute, Receive, Send  # noqa: E402
from core.node import Message, Node, Program  # noqa: E402
from core.record import STEP_COLUMNS, StepLog  # noqa: E402
from real import wire  # noqa: E402
from real.booking import Booker  # noqa: E402
from real.counter import Counter, Tally  # noqa: E402
from real.driver import Driver, Hooks, _Running  # noqa: E402
from real.errors import TransportError  # noqa: E402
from real.gather import assemble, remains  # noqa: E402
from real.journal import JournalError  # noqa: E402
from real.life import Life  # noqa: E402
from real.lives import Lives  # noqa: E402
from real.memory import MemoryNetwork  # noqa: E402
from real.process import _Process  # noqa: E402
from real.process import main as process_main  # noqa: E402
from real.wire import Header  # noqa: E402
from scenarios.plan import plan  # noqa: E402
from tests.real.runs import tiny  # noqa: E402


class Lock:
    """Counts how often it was taken."""

    def __init__(self) -> None:
        self.holds = 0

    def __enter__(self) -> None:
        self.holds += 1

    def __exit__(self, *_: object) -> None:
        return


def anything(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**fields)


def test_nothing_comes_between_the_tables_and_the_parameters() -> None:
    """A heartbeat there would be taken for the parameters."""
    process, lock, sent = _Process.__new__(_Process), Lock(), []
    log = StepLog(STEP_COLUMNS)
    node = anything(
        step=1, batch=2, blends=0, weight=1.0, params=torch.arange(3, dtype=torch.float32), observations=log,
        ledger=anything(applied={}, pending=dict),
    )  # fmt: skip
    process.id, process.is_server, process.sending, process.moving = 0, False, lock, 0.0  # type: ignore[assignment]
    process.life, process.custody = Life(0, False, (), print, float), None
    process.tally = anything(acknowledged=0)  # type: ignore[assignment]
    process.pipe = anything(send_bytes=lambda data: sent.append((lock.holds, bytes(data))))  # type: ignore[assignment]
    process.scenario = anything(run=anything(evaluate=True))  # type: ignore[assignment]
    process.driver = anything(node=node, computer=None, losses=[])  # type: ignore[assignment]
    process.booker = anything(parts=[], rows=log, spans=None, joins=[], end=0.0, zero=0.0)  # type: ignore[assignment]
    traffic = {"messages": 0, "bytes": 0}
    process.endpoint = anything(transfers=None, sent=traffic, received=traffic, lives=Lives())  # type: ignore[assignment]
    process.gradients, process.tensors, process.transport = log, anything(totals={}), anything(dropped={})  # type: ignore[assignment]
    process._report(stopped=False)
    assert [holds for holds, _ in sent] == [1, 1]
    assert msgspec.msgpack.decode(sent[0][1])["is"] == "tables"
    assert np.frombuffer(sent[1][1], np.float32).tolist() == [0, 1, 2]


def test_processes_count_together_and_a_dead_one_holds_up_nobody(tmp_path: Path) -> None:
    first, second = Counter(tmp_path / "samples"), Counter(tmp_path / "samples")
    assert [first.add(16), second.add(16), first.add(1)] == [0, 16, 32]
    code = (
        "import fcntl, os, signal, sys; file = os.open(sys.argv[1], os.O_RDWR); "
        "fcntl.lockf(file, fcntl.LOCK_EX); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "samples"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert second.add(1) == 33


def test_programs_wait_only_where_nothing_is_due_to_move_by_itself() -> None:
    driver, due = Driver.__new__(Driver), [True, False]
    driver.changed = threading.Condition()
    driver._programs, driver._draining = [_Running([], effect=Receive("model", source=2))], []
    driver.endpoint = anything(timed=due.pop)  # type: ignore[assignment]
    assert driver.waiting() == "model from node 2"
    assert driver.waiting() == ""


def test_a_companion_is_not_done_before_its_last_message_is_confirmed() -> None:
    network = MemoryNetwork(2)
    endpoint, receiver = network.endpoints
    driver = Driver.__new__(Driver)
    driver.node, driver.endpoint = anything(id=0, workers=2), endpoint  # type: ignore[assignment]
    driver._programs = [_Running([], effect=Receive("ask"))]
    endpoint.submit([(1, Message("answer"))])
    endpoint.on_frame(Header(wire.BYE, 1))
    assert not driver._nothing_left()
    network.settle()
    assert receiver.received["messages"] == 1
    assert driver._nothing_left()


def test_of_a_dead_worker_its_tally_counts_and_not_what_servers_have() -> None:
    """Else a gradient that was applied twice would pass for one more step."""
    made = plan(tiny("asp", cluster={"servers": {"count": 2}}))
    tables = {node: remains(node, 5, b"", (5, 0), server=node >= 2) for node in made.nodes}
    tables[1] = remains(1, 5, b"", (9, 0))
    tables[2].update(applied={0: 6, 1: 8}, pending={1: 1})
    tables[3].update(applied={0: 6, 1: 6}, pending={})
    record = assemble(made, tables, {}, {0: "it was killed", 1: "it was killed"}, complete=True)
    assert record.nodes["steps"].tolist()[:2] == [5, 9]
    assert record.nodes["samples"].tolist()[:2] == [5 * 16, 9 * 16]
    assert record.nodes["applied"].tolist()[:2] == [6, 6]
    assert record.nodes["lost"].tolist()[:2] == [0, 3]


def test_a_server_that_handed_over_nothing_is_still_a_server() -> None:
    assert remains(4, 0, b"", server=True)["totals"]["role"] == 1
    assert remains(1, 0, b"")["totals"]["role"] == 0


def test_a_server_reads_what_has_come_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher's word that the run is over may precede the look into its inbox."""
    network = MemoryNetwork(2)
    worker, endpoint = network.endpoints
    read: list[int] = []

    def serve() -> Program:
        while True:
            read.append((yield Receive("gradient")).step)

    def meanwhile(_: float | None) -> None:
        """All this happens before the thread, which sleeps, has the lock again."""
        worker.submit([(1, Message("gradient", step=7))])
        network.settle()
        worker.say(wire.BYE, [1])
        network.settle()
        driver.finish()

    node = Node(id=1, workers=1, params=None)
    driver = Driver(node, endpoint, Booker(1, server=True, spans=False), Hooks(lambda *_: True))
    monkeypatch.setattr(endpoint.changed, "wait", meanwhile)
    driver.run(serve())
    assert read == [7]


def test_companions_of_a_worker_that_ends_as_it_begins_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes back when the budget is met: its neighbours' requests are answered all the same."""
    network = MemoryNetwork(3)
    endpoint, *neighbours = network.endpoints
    answered: list[str] = []

    def answers(tag: str) -> Program:
        while True:
            request = yield Receive(tag)
            answered.append(tag)
            yield Send((request.source, Message("reply")))

    def worker() -> Program:
        return
        yield Compute()

    def meanwhile(_: float | None) -> None:
        if not answered:
            for end, tag in zip(neighbours, ("a", "b"), strict=True):
                end.submit([(0, Message(tag))])
            network.settle()
            for end in neighbours:
                end.say(wire.BYE, [0])
            driver.finish()
        network.settle()

    node = Node(id=0, workers=3, params=None)
    driver = Driver(node, endpoint, Booker(0, server=False, spans=False), Hooks(lambda *_: False))
    monkeypatch.setattr(endpoint.changed, "wait", meanwhile)
    driver.run(worker(), answers("a"), answers("b"))
    driver.drain()
    driver.serve()
    assert sorted(answered) == ["a", "b"]


def test_a_freeze_by_step_holds_the_worker_until_the_launcher_says_that_it_is_over() -> None:
    """It must not stop itself: if that came after the signal that lets it go on, it would never go on."""
    told: list[dict[str, Any]] = []

    def tell(**message: Any) -> None:
        told.append(message)
        life.thawed.set()  # the launcher is quick

    life = Life(0, False, [(3, "freeze", 0.1), (4, "leave", None)], tell, float)
    assert life.goes_on(2)
    assert not told
    assert life.goes_on(3)
    assert not life.goes_on(4)
    assert [message["kind"] for message in told] == ["freeze", "leave"]


def test_what_a_process_counted_is_there_when_it_has_been_killed(tmp_path: Path) -> None:
    assert Tally.read(tmp_path / "nobody") == (0, 0)
    code = (
        "import os, signal, sys; from real.counter import Tally; tally = Tally(sys.argv[1]); "
        "tally.stepped(7); tally.acknowledge(2); tally.acknowledge(3); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "tally")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert Tally.read(tmp_path / "tally") == (7, 5)


def listening(orders: list[dict[str, Any]], failed: list[BaseException], pause: float = 0.0) -> _Process:
    """A process that hears these orders, without a break, and then something that is none."""
    process, coming = _Process.__new__(_Process), iter(orders)

    def hear() -> dict[str, Any]:
        time.sleep(pause)
        return next(coming, {})

    process.pipe = anything(poll=lambda _: True)  # type: ignore[assignment]
    process.hear, process._fail = hear, failed.append  # type: ignore[method-assign]
    process.life = anything(thawed=threading.Event())  # type: ignore[assignment]
    return process


def test_what_goes_wrong_while_it_obeys_is_told_and_not_taken_for_silence() -> None:
    """The journal of a server whose disk is full cannot say who has left."""

    def depart(_: int, *, later: bool) -> None:
        raise full

    full, failed = JournalError("journal: no room"), list[BaseException]()
    process = listening([{"do": "left", "node": 1}], failed)
    process.transport = anything(depart=depart)  # type: ignore[assignment]
    process._listen()
    assert failed == [full]


def test_orders_without_end_do_not_silence_it(monkeypatch: pytest.MonkeyPatch) -> None:
    beats, failed = list[float](), list[BaseException]()
    monkeypatch.setattr("real.process.BEAT", 0.02)
    process = listening([{"do": "thaw"}] * 50, failed, pause=0.004)
    process._beat = lambda: beats.append(time.monotonic())  # type: ignore[method-assign]
    process._listen()
    assert len(failed) == 1
    assert isinstance(failed[0], KeyError)  # by then it has heard all
    assert len(beats) >= 5


def test_why_it_ends_does_not_come_in_the_midst_of_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both go through one pipe: what a process says goes through ``tell``, which takes turns."""
    told: list[dict[str, Any]] = []

    class Failing:
        def __init__(self, *_: object) -> None:
            return

        def tell(self, **message: Any) -> None:
            told.append(message)

        def run(self) -> None:
            raise TransportError("no way on")

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("real.process._Process", Failing)
    monkeypatch.setattr("real.process._tune", lambda: None)
    monkeypatch.setattr("real.process._end_with", lambda _: None)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit):
        process_main(anything())
    assert told == [{"is": "error", "text": "no way on"}]


def test_who_starts_after_its_launcher_has_ended_ends_without_a_word() -> None:
    """Ctrl-C while processes start: a late one finds neither its namespace nor who would hear of it."""
    program = (
        "import sys\n"
        "from real.pipe import pair, End\n"
        "from real.process import main\n"
        "from real.testbed.places import Place\n"
        "ours, theirs = pair()\n"
        "ours.close()\n"
        "main(End(theirs), Place('gone', '/nowhere/gone', 1, '10.77.0.1'))\n"
    )
    late = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=120
    )
    assert (late.returncode, late.stdout, late.stderr) == (1, "", "")
