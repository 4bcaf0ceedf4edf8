"""Whole runs under attack: by strangers at every port, and by a worker that has gone wrong."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq")

import psutil
import zmq

import real
from real import keys, wire
from scenarios.schema import Scenario
from tests.real.nodes import stranger
from tests.real.runs import tiny


@pytest.mark.parametrize("algorithm", ["Boasting", "Babbling"])
def test_a_worker_that_sends_what_was_not_agreed_leaves_the_run_to_the_rest(algorithm: str) -> None:
    record = real.train(tiny(f"tests.real.hostile:{algorithm}", workers=3, run={"steps": 10}))
    assert record.nodes["steps"][[0, 2]].tolist() == [10, 10]
    assert record.nodes["steps"][1] < 10
    ((node, why),) = record.manifest["lost"].items()
    assert node == "1"
    assert why.startswith("node 3 had to refuse a frame of node 1: ")
    assert any("worker 1 was lost" in flag for flag in record.manifest["flags"])
    fates = sum(record.nodes[what][:3] for what in ("applied", "pending", "lost"))
    assert fates.tolist() == record.nodes["steps"][:3].tolist()


def ports() -> list[int]:
    """Where processes of this test listen on loopback."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            found += [c.laddr.port for c in child.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        except psutil.Error:
            continue
    return sorted(set(found))


@pytest.mark.parametrize("dies", ["worker", "server"])
def test_the_port_of_a_node_that_died_is_not_dialled_any_more(dies: str) -> None:
    """Whoever listens there then would be told the run's token; a server that comes back is elsewhere."""
    thief = Thief()
    made = tiny("asp", workers=3, run={"steps": 400})
    if dies == "server":
        fault = {"kind": "crash", "servers": [0], "at": "1 s", "back": "4 s", "checkpoint_every": "1 s"}
        made = made.override({"faults": [fault]})
    kill = {1: 100} if dies == "worker" else {}
    record = real.train(made, on_progress=lambda *_: thief.begin(), kill=kill)
    thief.join(60)
    assert thief.listened
    assert thief.knocks == 0
    assert record.nodes["steps"][[0, 2]].tolist() == [400, 400]


class Thief(threading.Thread):
    """Waits until a process of a run has died, a moment more, and then listens where that did."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listened, self.knocks = False, 0

    def begin(self) -> None:
        """To be called when the run is under way."""
        if self.ident is None:
            self.start()

    def run(self) -> None:
        before, deadline = set(ports()), time.monotonic() + 60
        while time.monotonic() < deadline:
            there = set(ports())
            if before - there:
                self._listen(min(before - there))
                return
            before |= there
            time.sleep(0.02)

    def _listen(self, port: int) -> None:
        time.sleep(1.0)  # by then all have been told
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(0.5)
            self.listened = True
            with suppress(TimeoutError):
                server.accept()
                self.knocks += 1


class Attack(threading.Thread):
    """Strangers at every port of a run, sending rubbish as fast as it is taken, until ``over`` is set."""

    def __init__(self, identities: list[bytes | None]) -> None:
        super().__init__()
        self.over, self.targets, self.sent = threading.Event(), list[int](), 0
        self.heard = list[bytes]()
        self._identities = identities

    def begin(self, *_: object) -> None:
        """To be called when the run is under way."""
        if not self.is_alive() and not self.over.is_set():
            self.targets = ports()
            self.start()

    def run(self) -> None:
        rubbish = [b"GET /", bytes(wire.HEADER_BYTES), wire.pack(wire.Header(wire.BYE, 0), b"guessed!")]
        with ExitStack() as stack:
            sockets = [
                stack.enter_context(stranger(f"tcp://127.0.0.1:{port}", identity))
                for port in self.targets
                for identity in self._identities
            ]
            for one in sockets:
                one.setsockopt(zmq.SNDHWM, 100)
            while not self.over.is_set():
                for one in sockets:
                    self._bother(one, rubbish)
                time.sleep(0.01)

    def _bother(self, one: zmq.Socket[bytes], rubbish: list[bytes]) -> None:
        try:
            for frame in rubbish:
                one.send(frame, flags=zmq.NOBLOCK)
                self.sent += 1
        except zmq.Again:
            pass
        if one.poll(0):
            self.heard.append(one.recv())


@pytest.fixture
def attack() -> Iterator[Attack]:
    made = Attack([None, b"n" + bytes(8) + bytes(8), b"p" + bytes(16)])
    yield made
    made.over.set()
    if made.ident is not None:
        made.join(30)
        assert not made.is_alive()


def under(**run: object) -> Scenario:
    return tiny("bsp", workers=2, run={"steps": 150, "heartbeat_timeout": "60 s", **run})


def test_strangers_at_every_port_change_nothing(attack: Attack) -> None:
    quiet = real.train(under())
    record = real.train(under(), on_progress=attack.begin)
    attack.over.set()
    assert len(attack.targets) == 3
    assert attack.sent > 100
    assert not attack.heard
    assert record.nodes["steps"][:2].tolist() == [150, 150]
    assert record.curves["loss"].tolist() == pytest.approx(quiet.curves["loss"].tolist(), rel=1e-3)
    assert record.manifest["lost"] == {}
    assert set(record.manifest["frames_dropped"]) == {"0", "1", "2"}
    for dropped in record.manifest["frames_dropped"].values():
        assert dropped["cut off"] > 0


def test_with_keys_strangers_do_not_even_get_in(attack: Attack, tmp_path: Path) -> None:
    folder = keys.create(tmp_path / "secrets")
    record = real.train(under(keys=str(folder)), on_progress=attack.begin)
    attack.over.set()
    assert len(attack.targets) == 3
    assert not attack.heard
    assert record.nodes["steps"][:2].tolist() == [150, 150]
    assert record.manifest["lost"] == {}
    for dropped in record.manifest["frames_dropped"].values():
        assert list(dropped) == ["a connection without a handshake: another protocol, or no key"]
