"""Peers that mean harm, each against live nodes: they get nothing, are counted, and others are unharmed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
zmq = pytest.importorskip("zmq")

import psutil  # noqa: E402

from core.node import Message  # noqa: E402
from real import door, keys, reunion, wire  # noqa: E402
from real.errors import Refused  # noqa: E402
from real.transport import ZmqTransport  # noqa: E402
from real.wire import Agreed, Header  # noqa: E402
from tests.real.nodes import PATIENCE, Nodes, exchange, nodes, stranger, until  # noqa: E402

AGREED = Agreed(b"01234567", nodes=3, max_bytes=20_000_000)


@pytest.fixture
def pair() -> Iterator[Nodes]:
    with nodes(AGREED) as made:
        yield made


def insider(node: int, kind: bytes = b"n") -> bytes:
    """The identity of a node's connections: who has it knows the run's token."""
    return ZmqTransport._identity(AGREED.token, node, 0, kind)


def packed(kind: int, source: int, **fields: object) -> bytes:
    return wire.pack(Header(kind, source, **fields), AGREED.token)  # type: ignore[arg-type]


def dropped(made: Nodes, node: int = 1) -> int:
    return sum(made.transports[node].dropped.values())


GARBAGE = {
    "nothing": [b""],
    "http": [b"GET / HTTP/1.1\r\n\r\n"],
    "zeros": [bytes(wire.HEADER_BYTES)],
    "truncated": [packed(wire.REQ, 2, tag="m")[:-1]],
    "stretched": [packed(wire.REQ, 2, tag="m") + b"\0"],
    "parts": [packed(wire.REQ, 2), b"", b""],
    "payload": [packed(wire.REQ, 2), b"x"],
    "token": [wire.pack(Header(wire.REQ, 2, tag="m"), b"76543210")],
    "kind": [packed(77, 2)],
    "node": [packed(wire.REQ, 1_000_000)],
    "total": [packed(wire.REQ, 2, dtype="float32", total=1 << 60)],
    "fraction": [packed(wire.REQ, 2, dtype="float32", total=3)],
    "offset": [packed(wire.DATA, 2, dtype="float32", total=8, offset=1 << 63), b"12345678"],
    "too much": [packed(wire.DATA, 2, dtype="float32", total=4), b"12345678"],
    "empty data": [packed(wire.DATA, 2, dtype="float32", total=4), b""],
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_and_lies_of_a_stranger_are_dropped_and_it_is_cut_off(pair: Nodes, what: str) -> None:
    with stranger(pair.transports[1].address) as socket:
        for _ in range(10):
            socket.send_multipart(GARBAGE[what])
        until(lambda: dropped(pair) == 10)
    assert pair.transports[1].dropped["cut off"] == 9
    assert pair.endpoints[1]._requests == {} == pair.endpoints[1]._incoming
    exchange(pair)


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_and_lies_of_a_node_cut_it_off_and_the_launcher_is_told(pair: Nodes, what: str) -> None:
    """It holds the token. Nothing of it is looked at again; what follows is the launcher's to decide."""
    with stranger(pair.transports[1].address, insider(0, b"p")) as socket:
        for _ in range(10):
            socket.send_multipart(GARBAGE[what])
        until(lambda: dropped(pair) == 10)
    (failure,) = pair.failures
    assert isinstance(failure, Refused)
    assert (failure.by, failure.peer) == (1, 0)
    pair.failures.clear()
    assert pair.transports[1].dropped["cut off"] == 9


def test_who_claims_to_be_another_node_is_a_stranger(pair: Nodes) -> None:
    """Its frames are perfect, but for their connection."""
    with stranger(pair.transports[1].address, b"n" + b"guessed!" + bytes(8)) as socket:
        socket.send(packed(wire.BYE, 0, step=7))
        socket.send(packed(wire.REQ, 0, tag="model", dtype="float32", total=64))
        until(lambda: dropped(pair) == 2)
    assert not pair.endpoints[1].ended
    assert not pair.endpoints[1].mailbox.left
    exchange(pair)


def test_a_second_connection_with_a_nodes_identity_is_not_listened_to(pair: Nodes) -> None:
    """The first one counts: nobody takes over a connection by repeating its identity."""
    exchange(pair)
    with stranger(pair.transports[1].address, insider(0)) as socket:
        socket.send(packed(wire.BYE, 0, step=7))
        exchange(pair, source=1, to=0)
        exchange(pair)
    assert not pair.endpoints[1].ended


def record(made: Nodes, node: int) -> list[tuple[Header, bytes]]:
    """Let an exchange pass, noting the frames that ``node`` takes."""
    endpoint, seen = made.endpoints[node], list[tuple[Header, bytes]]()
    on_frame = endpoint.on_frame

    def tap(header: Header, payload: memoryview | None = None) -> None:
        seen.append((header, bytes(payload or b"")))
        on_frame(header, payload)

    endpoint.on_frame = tap  # type: ignore[method-assign]
    exchange(made, 2_000_000)
    exchange(made, 10, source=1, to=0)
    endpoint.on_frame = on_frame  # type: ignore[method-assign]
    return seen


def frames(seen: list[tuple[Header, bytes]]) -> list[list[bytes]]:
    return [[wire.pack(h, AGREED.token), *([body] if h.kind == wire.DATA else [])] for h, body in seen]


def test_old_messages_that_a_node_replays_are_dropped_and_nothing_comes_twice(pair: Nodes) -> None:
    """On a connection of its own: sequence numbers that were used mean nothing any more."""
    seen = record(pair, 1)
    kinds = {header.kind for header, _ in seen}
    assert kinds == {wire.REQ, wire.DATA, wire.GRANT, wire.DONE}
    before = dict(pair.endpoints[1].received)
    with stranger(pair.transports[1].address, insider(0, b"p")) as socket:
        for parts in frames(seen):
            socket.send_multipart(parts)
        until(lambda: dropped(pair) == len(seen))
    assert "cut off" not in pair.transports[1].dropped
    assert dict(pair.endpoints[1].received) == before
    assert not pair.endpoints[1].mailbox.items
    exchange(pair)
    exchange(pair, source=1, to=0)


def test_old_messages_that_a_stranger_replays_cut_it_off(pair: Nodes) -> None:
    """Token and all: they are of a node, and this is not its connection."""
    seen = record(pair, 1)
    with stranger(pair.transports[1].address) as socket:
        for parts in frames(seen):
            socket.send_multipart(parts)
        until(lambda: dropped(pair) == len(seen))
    assert pair.transports[1].dropped["cut off"] == len(seen) - 1
    exchange(pair)


def test_a_replay_in_the_midst_of_a_message_does_not_disturb_it(pair: Nodes) -> None:
    sender, receiver = pair.endpoints
    on_frame, twice = receiver.on_frame, list[int]()

    def echo(header: Header, payload: memoryview | None = None) -> None:
        on_frame(header, payload)
        if header.kind in (wire.REQ, wire.DATA):
            with pytest.raises(wire.WireError):
                on_frame(header, payload)
            twice.append(header.kind)

    receiver.on_frame = echo  # type: ignore[method-assign]
    exchange(pair, 3_000_000)
    assert twice.count(wire.DATA) == 3
    assert receiver.received["messages"] == 1
    assert sender.sent["messages"] == 1


def resident() -> int:
    return psutil.Process().memory_info().rss


def test_a_flood_of_small_frames_does_not_grow_memory_or_stop_the_others(pair: Nodes) -> None:
    """A stranger's go to nothing; a node's own, each of which is answered, wait at its end of the line."""
    exchange(pair)
    before, deadline = resident(), time.monotonic() + 3
    with (
        stranger(pair.transports[1].address) as outsider,
        stranger(pair.transports[1].address, insider(2)) as member,
    ):
        outsider.setsockopt(zmq.SNDHWM, 1000)
        member.setsockopt(zmq.SNDHWM, 1000)
        sent = 0
        while time.monotonic() < deadline:
            for one, frame in ((outsider, b"rubbish"), (member, packed(wire.PING, 2))):
                try:
                    for _ in range(500):
                        one.send(frame, flags=zmq.NOBLOCK)
                        sent += 1
                except zmq.Again:
                    time.sleep(0.001)
            if not sent % 3:
                exchange(pair)
        exchange(pair)
    assert sent > 2000
    assert pair.transports[1].dropped["cut off"] > 100
    assert resident() - before < 100e6


def greeted(address: str) -> socket.socket:
    """A connection that has shaken hands by hand (ZMTP 3.0, NULL), as a DEALER."""
    host, port = address.removeprefix("tcp://").split(":")
    made = socket.create_connection((host, int(port)), timeout=PATIENCE)
    made.sendall(b"\xff" + bytes(7) + b"\x01\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    ready = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
    made.sendall(b"\x04" + bytes([len(ready)]) + ready)
    answer = b""
    while b"READY" not in answer:
        answer += made.recv(1000)
    return made


@pytest.mark.parametrize(("size", "most"), [(1, 1e8), (250, 1e9), (100_000, 2e9)])
def test_who_sends_a_message_without_an_end_is_cut_off(pair: Nodes, size: int, most: float) -> None:
    """libzmq would keep all of its parts: it is kept from that, and others are unharmed."""
    exchange(pair)
    victim, sent, before = pair.transports[1], 0, resident()
    part = b"\x01" + bytes([size]) if size < 256 else b"\x03" + size.to_bytes(8, "big")
    parts = (part + bytes(size)) * max(1, 30_000 // size)
    with greeted(victim.address) as endless, suppress(ConnectionError):
        while sent < most:
            endless.sendall(parts)
            sent += len(parts)
    assert sent < most
    until(lambda: victim.dropped.get("a connection whose message does not end") == 1)
    assert resident() - before < 500e6
    exchange(pair)
    assert not pair.failures


def test_long_messages_that_come_slowly_do_end(pair: Nodes) -> None:
    """Pauses within a message, and many of the largest ones, are nobody's fault."""
    victim, body = pair.transports[1], bytes(wire.CHUNK)
    with greeted(victim.address) as slow:
        for _ in range(3):
            slow.sendall(b"\x01\x01x\x02" + len(body).to_bytes(8, "big") + body[:-1])
            time.sleep(0.5)
            slow.sendall(body[-1:])
        until(lambda: dropped(pair) == 3)
    for _ in range(3):
        exchange(pair, 5_000_000)
    assert "a connection whose message does not end" not in victim.dropped


def test_who_sends_message_after_message_is_left_alone(tmp_path: Path) -> None:
    """Much more than may be unfinished, with keys: each message that ends counts anew."""
    with nodes(AGREED, keys=keys.load(keys.create(tmp_path / "secrets"))) as made:
        watch, looked, before = made.transports[1]._door.unfinished, 0, inf
        deadline = time.monotonic() + PATIENCE
        while looked < 10 and time.monotonic() < deadline:
            exchange(made, 2_000_000)
            looked, before = looked + (watch.due > before), watch.due
        assert looked == 10
        assert not made.transports[1].dropped


def test_announced_frames_beyond_the_largest_are_not_read(pair: Nodes) -> None:
    with stranger(pair.transports[1].address, insider(2)) as peer:
        with peer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as events:
            peer.send_multipart(
                [packed(wire.DATA, 2, dtype="float32", total=wire.CHUNK), bytes(wire.CHUNK + 1)]
            )
            assert events.poll(PATIENCE * 1e3), "the connection was not closed"
            peer.disable_monitor()
        exchange(pair)
    assert not pair.transports[1].dropped
    assert not pair.failures


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("tcp://").split(":")
    made = socket.socket()
    made.setblocking(False)
    made.connect_ex((host, int(port)))
    return made


def test_so_many_connections_and_no_more(pair: Nodes) -> None:
    """Beyond the bound the kernel drops what knocks; who is inside goes on; with room, others come in."""
    victim = pair.transports[1]
    most = victim._door.most
    before = len(os.listdir("/proc/self/fd"))
    crowd = [connect(victim.address) for _ in range(most + door.BACKLOG + 100)]
    until(lambda: victim._door.shut)
    for _ in range(5):
        exchange(pair)
    taken = len(os.listdir("/proc/self/fd")) - before - len(crowd)
    assert taken <= most + door.BACKLOG + 1
    assert victim.dropped["connections beyond those that there may be"] >= 1
    for one in crowd:
        one.close()
    until(lambda: not victim._door.shut)
    with stranger(victim.address) as late:
        late.send(b"hello")
        until(lambda: "not a frame" in str(victim.dropped) or "header of" in str(victim.dropped))
    exchange(pair)


def test_who_connects_and_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HANDSHAKE", 0.3)
    with nodes(AGREED) as pair:
        exchange(pair)
        present = pair.transports[1]._door.open
        silent = [connect(pair.transports[1].address) for _ in range(5)]
        until(lambda: pair.transports[1]._door.open == present + 5)
        until(lambda: pair.transports[1]._door.open == present)
        exchange(pair)
        for one in silent:
            one.close()


def test_who_does_not_read_its_answers_gets_no_more_than_may_wait(pair: Nodes) -> None:
    """Every ping is answered; what neither the kernel nor a bounded queue holds is dropped."""
    asked, victim, met = 60_000, pair.transports[1], list[int]()
    with (
        socket.create_server(("127.0.0.1", 0)) as elsewhere,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as peer,
    ):
        host, port = elsewhere.getsockname()
        victim.meet(2, f"tcp://{host}:{port}", 0, lambda: met.append(2))
        until(lambda: bool(met))
        for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, 0), (zmq.RCVHWM, 1), (zmq.RCVBUF, 4096)):
            peer.setsockopt(option, value)
        peer.setsockopt(zmq.IDENTITY, insider(2))
        peer.connect(victim.address)
        before = pair.endpoints[1].moved
        for _ in range(asked):
            peer.send(packed(wire.PING, 2))
        until(lambda: pair.endpoints[1].moved >= before + 2 * asked)
        exchange(pair)
        answers = 0
        while peer.poll(1000):
            peer.recv()
            answers += 1
    assert 0 < answers < asked
    assert not victim.dropped


def test_who_says_again_and_again_that_it_is_back_is_answered_once(pair: Nodes) -> None:
    """The answer goes out on the connection that this node opened, where as much may wait as there is."""
    victim, before = pair.endpoints[1], pair.endpoints[0].moved
    with stranger(pair.transports[1].address, insider(0, b"p")) as peer:
        for _ in range(100):
            peer.send(packed(wire.HELLO, 0, step=reunion.ANSWER))
        until(lambda: dropped(pair) == 99)
    exchange(pair)
    assert [*pair.transports[1].dropped] == ["node 0 says again that it is back"]
    assert victim.greeted == {0: 0}
    assert pair.endpoints[0].moved - before < 50


def test_the_port_of_a_node_that_has_ended_is_not_dialled_any_more(pair: Nodes) -> None:
    """Anybody may listen there by then, and would be told the token."""
    first, second = pair.transports
    first.pulse.watch(0.2, lambda: {1})
    until(lambda: 1 in first.pulse._connections)
    host, port = second.address.removeprefix("tcp://").split(":")
    second.close()
    pair.endpoints[0].depart(1)
    first.hang_up(1)
    until(lambda: not first._dealers and not first.pulse._connections)
    time.sleep(0.3)  # what was on its way
    with socket.create_server((host, int(port))) as thief:
        thief.settimeout(1.0)
        with pytest.raises(TimeoutError):
            thief.accept()
    pair.endpoints[0].say(wire.PING, [1])  # goes nowhere
    until(lambda: not pair.endpoints[0]._outbox)


# ---- with keys ------------------------------------------------------------------------------------


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Nodes]:
    with nodes(AGREED, keys=keys.load(keys.create(tmp_path / "secrets"))) as made:
        yield made


def test_nodes_with_keys_understand_each_other(locked: Nodes) -> None:
    exchange(locked, 3_000_001)
    exchange(locked, 10, source=1, to=0)
    assert not dropped(locked)


def test_who_has_no_key_gets_nothing(locked: Nodes) -> None:
    """Not even with the token and a node's identity."""
    with stranger(locked.transports[1].address, insider(2)) as peer:
        peer.send(packed(wire.PING, 2))
        until(lambda: "no key" in str(locked.transports[1].dropped))
        assert not peer.poll(200)
    assert not locked.endpoints[1].received["pong"]
    assert len(locked.transports[1].dropped) == 1
    exchange(locked)


@pytest.mark.parametrize("which", ["client", "server"])
def test_who_has_a_wrong_key_gets_nothing(locked: Nodes, tmp_path: Path, which: str) -> None:
    """A client key that is not the one; or the right one, but another server is expected."""
    right = locked.transports[1]._keys
    other = keys.load(keys.create(tmp_path / "other"))
    assert right is not None
    mixed = {
        "client": keys.Keys(right.server_public, b"", other.client_public, other.client_secret),
        "server": keys.Keys(other.server_public, b"", right.client_public, right.client_secret),
    }[which]
    with stranger(locked.transports[1].address, insider(2), mixed) as peer:
        peer.send(packed(wire.PING, 2))
        if which == "client":
            until(lambda: "unknown key" in str(locked.transports[1].dropped))
        assert not peer.poll(500)
    exchange(locked)


def test_what_crosses_cannot_be_read(locked: Nodes) -> None:
    """A relay between two nodes sees neither the token nor the tag, nor the numbers that are sent."""
    host, port = locked.transports[1].address.removeprefix("tcp://").split(":")
    seen = _through_a_relay(locked, (host, int(port)))
    assert len(seen) > 4_000_000
    assert AGREED.token not in seen
    assert b"model" not in seen
    assert torch.arange(16, dtype=torch.float32).numpy().tobytes() not in seen


def _through_a_relay(made: Nodes, target: tuple[str, int]) -> bytes:
    """Send a message from node 2, dialled through a relay, to node 1; what the relay saw."""
    import selectors
    import threading

    seen, over = bytearray(), threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def relay() -> None:
        ends: dict[socket.socket, socket.socket] = {}
        with selectors.DefaultSelector() as ready:
            ready.register(listening, selectors.EVENT_READ)
            while not over.is_set():
                for key, _ in ready.select(0.05):
                    one = key.fileobj
                    assert isinstance(one, socket.socket)
                    if one is listening:
                        near, _ = listening.accept()
                        far = socket.create_connection(target)
                        ends[near], ends[far] = far, near
                        ready.register(near, selectors.EVENT_READ)
                        ready.register(far, selectors.EVENT_READ)
                        continue
                    data = one.recv(1 << 16)
                    if data:
                        seen.extend(data)
                        ends[one].sendall(data)
                    else:
                        ready.unregister(one)
        for one in (listening, *ends):
            one.close()

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        relayed = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        first = made.endpoints[0]
        made.transports[0].meet(1, relayed, 0, lambda: None)
        until(lambda: made.transports[0]._addresses[1] == relayed)
        assert first.submit([(1, Message("model", torch.arange(1_000_000, dtype=torch.float32)))])
        until(lambda: made.endpoints[1].received["messages"] == 1)
    finally:
        over.set()
        thread.join(10)
    return bytes(seen)
