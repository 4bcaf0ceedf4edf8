"""The transport over real sockets: two nodes in threads of this process, and peers that mean harm."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")
zmq = pytest.importorskip("zmq")

from core.node import Message  # noqa: E402
from real import wire  # noqa: E402
from real.buffers import allocate, expose  # noqa: E402
from real.endpoint import Endpoint  # noqa: E402
from real.errors import TransportError, WireError  # noqa: E402
from real.pacing import Links  # noqa: E402
from real.transport import ZmqTransport  # noqa: E402
from real.wire import Agreed, Header  # noqa: E402

AGREED = Agreed(b"01234567", nodes=3, max_bytes=20_000_000)
PATIENCE = 20.0


@dataclass
class Pair:
    """Two connected nodes."""

    endpoints: list[Endpoint]
    transports: list[ZmqTransport]
    failures: list[BaseException]


@pytest.fixture(params=[False, True], ids=["native", "paced"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    links = Links(request.param, (1e9,) * 3, (1e9,) * 3, (0.0,) * 3)
    failures: list[BaseException] = []
    endpoints = [
        Endpoint(node, AGREED, links, allocate=allocate, expose=expose, clock=time.monotonic)
        for node in range(2)
    ]
    transports = [ZmqTransport(endpoint, failures.append) for endpoint in endpoints]
    addresses = {node: transport.address for node, transport in enumerate(transports)}
    for transport in transports:
        transport.start(addresses)
    yield Pair(endpoints, transports, failures)
    for transport in transports:
        transport.close()
    assert not failures


def until(endpoint: Endpoint, true: Callable[[], bool]) -> None:
    """Wait for something to become true, at most ``PATIENCE`` seconds."""
    end = time.monotonic() + PATIENCE
    with endpoint.changed:
        while not true():
            assert time.monotonic() < end, "nothing happened"
            endpoint.changed.wait(0.05)


def test_large_messages_cross_both_ways_intact(pair: Pair) -> None:
    generator = torch.Generator().manual_seed(0)
    sent = [torch.rand(3_000_001, generator=generator) for _ in range(4)]
    first, second = pair.endpoints
    for number, (a, b) in enumerate([(0, 1), (1, 0), (0, 1), (1, 0)]):
        sender, receiver = pair.endpoints[a], pair.endpoints[b]
        assert sender.submit([(b, Message("model", sent[number], number))])
        until(sender, lambda sender=sender, b=b: sender.delivered([b]))
        got, _ = receiver.take(("model",), a, number)
        assert isinstance(got, Message)
        assert torch.equal(got.tensor, sent[number])
    assert first.sent["bytes"] == second.received["bytes"] == 24_000_008


def stranger(address: str) -> tuple[object, object]:
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(address)
    return context, socket


HARM: list[list[bytes]] = [
    [b""],
    [b"GET / HTTP/1.1\r\n\r\n"],
    [bytes(wire.HEADER_BYTES)],
    [bytes(wire.HEADER_BYTES), b"x" * 1000],
    [b"a", b"b", b"c", b"d"],
    [wire.pack(Header(wire.REQ, 0, tag="model", dtype="float32", total=64), b"12345678")],
    [wire.pack(Header(wire.REQ, 2, tag="model", dtype="float32", total=64), AGREED.token)],
    [wire.pack(Header(wire.BYE, 0), AGREED.token)],
    [wire.pack(Header(wire.REQ, 0, tag="model", dtype="float32", total=1 << 40), AGREED.token)],
    [wire.pack(Header(wire.DATA, 0, tag="model", dtype="float32", total=64), AGREED.token), b"x" * 64],
]


def test_hostile_peers_are_counted_and_cut_off_and_others_are_unharmed(pair: Pair) -> None:
    first, second = pair.endpoints
    victim = pair.transports[1]
    opened = [stranger(victim.address) for _ in HARM]
    for (_, socket), parts in zip(opened, HARM, strict=True):
        socket.send_multipart(parts)  # type: ignore[attr-defined]
        socket.send_multipart(parts)  # type: ignore[attr-defined]
    until(second, lambda: sum(victim.dropped.values()) == 2 * len(HARM))
    assert victim.dropped["cut off"] == len(HARM)
    assert not second.mailbox.items
    assert not second.mailbox.left
    sent = torch.arange(1000, dtype=torch.float32)
    assert first.submit([(1, Message("model", sent))])
    until(first, lambda: first.delivered([1]))
    got, _ = second.take(("model",), 0, None)
    assert isinstance(got, Message)
    assert torch.equal(got.tensor, sent)
    for context, socket in opened:
        socket.close()  # type: ignore[attr-defined]
        context.term()  # type: ignore[attr-defined]


@pytest.mark.parametrize("direction", ["request", "answer"])
def test_a_frame_of_a_node_that_does_not_fit_ends_the_run_and_names_it(pair: Pair, direction: str) -> None:
    """Dropped, it would leave both sides waiting for ever."""
    first, second = pair.endpoints
    second.say(wire.PING, [0])  # opens the connection that answers come on
    until(second, lambda: second.received["pong"] == 1)
    if direction == "request":
        first.agreed = Agreed(AGREED.token, AGREED.nodes, 10 * AGREED.max_bytes)
        assert first.submit([(1, Message("model", torch.ones(AGREED.max_bytes // 2)))])
    else:
        first.say(wire.GRANT, [1])
    until(second, lambda: bool(pair.failures))
    failure = pair.failures.pop()
    assert isinstance(failure, TransportError)
    says = "agreed were at most 20000000" if direction == "request" else "answers message 0"
    assert str(failure).startswith("node 1 had to refuse a frame of node 0: ")
    assert says in str(failure)


@pytest.mark.parametrize("token", [b"12345678", b"0123456", b"012345678"])
def test_who_only_claims_to_be_a_node_is_a_stranger(pair: Pair, token: bytes) -> None:
    """An identity without the run's token, whatever it says, ends nothing."""
    victim = pair.transports[1]
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IDENTITY, ZmqTransport._identity(token, 0))
        socket.connect(victim.address)
        for parts in HARM:
            socket.send_multipart(parts)
        until(pair.endpoints[1], lambda: sum(victim.dropped.values()) == len(HARM))
    assert victim.dropped["cut off"] == len(HARM) - 1
    assert not pair.failures


def test_who_answers_in_a_dead_nodes_place_is_a_stranger(pair: Pair) -> None:
    """Frames without the run's token that come on a connection which this node opened are dropped."""
    transport = pair.transports[0]
    with pytest.raises(WireError):
        transport._handle(1, [zmq.Frame(bytes(wire.HEADER_BYTES))])
    held = [[zmq.Frame(b"GET")], [zmq.Frame(bytes(wire.HEADER_BYTES))]]

    class Other:
        def recv_multipart(self, **_: object) -> list[object]:
            if not held:
                raise zmq.Again
            return held.pop()

    assert transport._drain(Other(), 1)
    assert sum(transport.dropped.values()) == 2
    assert not pair.failures


def test_closing_leaves_no_descriptor_open() -> None:
    endpoint = Endpoint(0, AGREED, Links(False), allocate=allocate, expose=expose, clock=time.monotonic)
    before = set(os.listdir("/proc/self/fd"))
    transport = ZmqTransport(endpoint, lambda _: None)
    transport.start({0: transport.address})
    transport.close()
    transport.close()
    endpoint.kick()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_frame_larger_than_any_agreed_one_is_not_even_read(pair: Pair) -> None:
    first, second = pair.endpoints
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        with socket.get_monitor_socket(zmq.EVENT_DISCONNECTED) as events:
            socket.connect(pair.transports[1].address)
            socket.send(b"x" * (wire.CHUNK + 1))
            assert events.poll(PATIENCE * 1e3), "the connection was not closed"
            socket.disable_monitor()
        assert not pair.transports[1].dropped
        assert first.submit([(1, Message("model", torch.ones(10)))])
        until(first, lambda: first.delivered([1]))
        assert second.received["messages"] == 1


def test_a_flood_does_not_keep_a_node_from_its_own_work(pair: Pair) -> None:
    """A connection with more frames than ever come to an end: other frames still go in and out."""
    first, victim = pair.endpoints[0], pair.transports[1]
    drain = victim._drain

    class Flood:
        """A socket that always holds one more frame."""

        def recv_multipart(self, **_: object) -> list[object]:
            return [zmq.Frame(b"stranger"), zmq.Frame(b"GET")]

    victim._drain = lambda socket, opened_to: (  # type: ignore[method-assign]
        (opened_to is None and drain(Flood(), None)) | drain(socket, opened_to)
    )
    assert first.submit([(1, Message("model", torch.ones(10)))])
    until(first, lambda: first.delivered([1]))
    victim._drain = drain  # type: ignore[method-assign]
    assert victim.dropped["cut off"] > 0


def test_reasons_are_counted_up_to_a_bound(pair: Pair) -> None:
    transport = pair.transports[0]
    for length in range(1000):
        transport._drop(f"header of {length} bytes")
    assert len(transport.dropped) <= 101
    assert sum(transport.dropped.values()) == 1000
    transport.dropped.clear()


def test_a_peer_that_was_declared_dead_is_not_heard_any_more(pair: Pair) -> None:
    first, second = pair.endpoints
    second.depart(0)
    before = second.moved
    first.submit([(1, Message("model", torch.ones(10)))])
    first.say(wire.PING, [1])
    until(second, lambda: second.moved >= before + 2)  # both have come
    assert second._requests == {} == second._incoming
    assert second.received["messages"] == 0
    assert not first.delivered([1])


def test_who_is_put_off_and_met_again_is_heard() -> None:
    """The joiner's own thread does not run yet; of two connections of one identity it would only hear one."""
    endpoints = [
        Endpoint(node, AGREED, Links(paced=False), allocate=allocate, expose=expose, clock=time.monotonic)
        for node in range(2)
    ]
    failures: list[BaseException] = []
    peer, joiner = transports = [ZmqTransport(endpoint, failures.append) for endpoint in endpoints]
    try:
        peer.start({1: joiner.address})
        time.sleep(0.3)  # both connections are to be made before the joiner looks
        peer.depart(1, later=True)
        met: list[bool] = []
        peer.meet(1, joiner.address, 0, lambda: met.append(True))
        until(endpoints[0], lambda: bool(met))
        endpoints[0].say(wire.BYE, [1], number=1.0)
        time.sleep(0.3)
        joiner.start({0: peer.address})
        until(endpoints[1], lambda: endpoints[1].mailbox.left == {0})
    finally:
        for transport in transports:
            transport.close()
    assert not failures
