"""Nodes that come back: what is of a former life is dropped and counted, on both sides, never mixed."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.node import JOINED, LEFT, Joined, Left, Message
from real import reunion, wire
from real.endpoint import Endpoint
from real.mailbox import Mailbox
from real.memory import MemoryNetwork, allocate, expose
from real.pacing import Links
from real.wire import Header


def message(tag: str = "m", step: int = 0) -> Message:
    return Message(tag, np.arange(1000, dtype=np.float32) + step, step)


def reborn(network: MemoryNetwork, rank: int, life: int) -> None:
    """Node ``rank`` is another process now, of which all others have been told."""
    network.endpoints[rank] = Endpoint(
        rank, network.agreed, Links(paced=False), allocate=allocate, expose=expose,
        clock=lambda: network.now, life=life,
    )  # fmt: skip
    others = [endpoint for endpoint in network.endpoints if endpoint.me != rank]
    for endpoint in others:
        endpoint.meet(rank, life)
    known = {endpoint.me: endpoint.life for endpoint in others}
    network.endpoints[rank].introduce(known, known)


def take(endpoint: Endpoint, *tags: str) -> Message | Left | Joined | None:
    return endpoint.take(tags, None, None)[0]


def test_sequence_numbers_begin_anew_and_old_frames_are_dropped_and_counted() -> None:
    network = MemoryNetwork(2, inbox=9)
    old, server = network.endpoints
    for step in range(3):
        old.submit([(1, message(step=step))], window=9)
    network.run()
    last = Header(wire.REQ, 0, 3, "m", "float32", total=4000)
    reborn(network, 0, 1)
    server.on_frame(last)
    server.on_frame(Header(wire.DATA, 0, 3, "m", "float32", total=4000), memoryview(bytes(4000)))
    server.on_frame(Header(wire.BYE, 0, step=9))
    assert server.lives.former == 3
    server.welcome(0, 1)
    network.endpoints[0].submit([(1, message(step=7))])
    network.run()
    steps = []
    while (got := take(server, "m", LEFT, JOINED)) is not None:
        steps.append(got.step if isinstance(got, Message) else got)
    assert steps == [0, 1, 2, Left(0), Joined(0), 7]
    assert server.lives.former == 3


def test_half_a_message_dies_with_its_sender() -> None:
    network = MemoryNetwork(2)
    server = network.endpoints[1]
    server.on_frame(Header(wire.REQ, 0, 0, "m", "float32", total=4000))
    server.on_frame(Header(wire.DATA, 0, 0, "m", "float32", total=4000), memoryview(bytes(2000)))
    reborn(network, 0, 1)
    server.on_frame(Header(wire.DATA, 0, 0, "m", "float32", total=4000, offset=2000), memoryview(bytes(2000)))
    network.run()
    assert not any(isinstance(item, Message) for item, _ in server.mailbox.items)
    assert server.received["messages"] == 0
    network.endpoints[0].submit([(1, message(step=5))])
    network.run()
    got = take(server, "m")
    assert isinstance(got, Message)
    np.testing.assert_array_equal(got.tensor, message(step=5).tensor)


def test_what_was_on_its_way_from_a_server_that_has_died_is_dropped() -> None:
    """The launcher may tell of its death before the last it sent has been read; then its next life comes."""
    worker = MemoryNetwork(2).endpoints[0]

    def of(life: int, kind: int, offset: int = 0) -> Header:
        return Header(kind, 1, 0, "m", "float32", life, total=4000, offset=offset)

    worker.on_frame(of(0, wire.REQ))
    worker.on_frame(of(0, wire.DATA), memoryview(bytes(2000)))
    reunion.part(worker, 1)
    worker.on_frame(of(0, wire.DATA, 2000), memoryview(bytes(2000)))
    for kind in (wire.REQ, wire.GRANT, wire.HOLD, wire.RESUME, wire.DONE):
        worker.on_frame(of(0, kind))
    assert worker.lives.former == 6
    assert worker.received["messages"] == 0
    worker.meet(1, 1)
    for header in (of(1, wire.HELLO), of(1, wire.REQ)):
        worker.on_frame(header)
    worker.on_frame(of(1, wire.DATA), memoryview(message(step=5).tensor).cast("B"))
    got = take(worker, "m")
    assert isinstance(got, Message)
    np.testing.assert_array_equal(got.tensor, message(step=5).tensor)


def test_an_answer_to_the_former_life_goes_nowhere() -> None:
    """The server reads the dead worker's gradient when its next life is there already."""
    network = MemoryNetwork(2)
    worker, server = network.endpoints
    worker.submit([(1, message("gradient"))])
    network.run()
    reborn(network, 0, 1)
    server.welcome(0, 1)
    network.endpoints[0].submit([(1, message("join"))])
    network.run()
    assert isinstance(take(server, "gradient"), Message)
    server.submit([(0, message("model"))])
    network.run()
    assert take(network.endpoints[0], "model") is None
    assert isinstance(take(server, "join"), Message)
    server.submit([(0, message("state"))])
    network.run()
    assert isinstance(take(network.endpoints[0], "state"), Message)


def test_who_is_met_but_not_welcomed_is_answered_beside_the_programs_alone() -> None:
    network = MemoryNetwork(2)
    peer = network.endpoints[1]
    peer.beside = "join"
    reborn(network, 0, 1)
    network.endpoints[0].submit([(1, message("join"))])
    network.run()
    assert peer.asking == {0}
    assert take(peer, "join") is None
    peer.submit([(0, message("share"))])
    peer.submit([(0, message("state"))], unknown=True)
    network.run()
    assert isinstance(take(network.endpoints[0], "state"), Message)
    assert take(network.endpoints[0], "share") is None
    peer.welcome(0, 1)
    assert take(peer, "share") is None  # it has looked: now it knows
    peer.submit([(0, message("share"))])
    network.run()
    assert isinstance(take(network.endpoints[0], "share"), Message)


def test_a_joiner_that_dies_asks_no_more() -> None:
    network = MemoryNetwork(2)
    peer = network.endpoints[1]
    peer.beside = "join"
    network.endpoints[0].submit([(1, message("join"))])
    network.run()
    peer.depart(0)
    assert peer.asking == set()


def test_news_of_a_life_that_is_over_is_no_news() -> None:
    """Its goodbye may come before the launcher's word that it has joined."""
    network = MemoryNetwork(2)
    peer = network.endpoints[1]
    reborn(network, 0, 1)
    network.endpoints[0].say(wire.BYE, [1], number=1.0)
    network.run()
    peer.welcome(0, 1)
    peer.welcome(0, 0)
    assert peer.mailbox.left == {0}
    assert peer.lives.finished


def test_who_comes_after_a_goodbye_hears_it_too() -> None:
    """The launcher may not know yet that the other one has ended, and tell the joiner that it is there."""
    network = MemoryNetwork(3)
    network.endpoints[1].say(wire.BYE, [0, 2], number=1.0)
    reborn(network, 0, 1)
    network.run()
    joiner = network.endpoints[0]
    assert joiner.mailbox.left == {1}
    assert joiner.ended == {1: 0}
    assert joiner.lives.finished


def test_whoever_awaits_a_former_life_hears_that_it_has_left() -> None:
    mailbox = Mailbox()
    mailbox.depart(3, 0.0)
    mailbox.join(3, 1, 0.0)
    assert mailbox.take(("reply",), 3, None)[0] == Left(3)
    assert mailbox.take(("reply",), 3, None)[0] is None


@given(st.lists(st.tuples(st.sampled_from(["message", "leave", "join", "take", "clear"]), st.integers(0, 2))))
def test_news_is_known_in_order_and_never_before_what_came_first(moves: list[tuple[str, int]]) -> None:
    """When a message is taken, exactly the news that came before it is known, and any that was before."""
    mailbox, sent, known, latest = Mailbox(), 0, 0, 0
    came: list[int] = []
    for move, rank in moves:
        if move == "message":
            mailbox.deliver(Message("m", step=sent, source=rank), 0.0)
            came.append(latest)
            sent += 1
        elif move == "leave" and rank not in mailbox.left:
            mailbox.depart(rank, 0.0)
            latest += 1
        elif move == "join" and rank in mailbox.left:
            mailbox.join(rank, 1, 0.0)
            latest += 1
        elif move == "take":
            item, _ = mailbox.take(("m",), None, None)
            known = max(known, came[item.step] if isinstance(item, Message) else latest)
        elif move == "clear":
            mailbox.clear()
            known = latest
        assert len(mailbox.learned) == known


def until(endpoint: Endpoint, true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    with endpoint.changed:
        while not true():
            assert time.monotonic() < end, "nothing happened"
            endpoint.changed.wait(0.05)


def test_over_sockets_a_new_life_has_a_new_address_and_its_former_connection_is_deaf() -> None:
    pytest.importorskip("zmq")
    from real.transport import ZmqTransport

    agreed = wire.Agreed(b"01234567", 2, 1 << 20)

    def node(me: int, life: int = 0) -> tuple[Endpoint, ZmqTransport]:
        made = Endpoint(
            me, agreed, Links(paced=False), allocate=allocate, expose=expose, clock=time.monotonic, life=life
        )
        return made, ZmqTransport(made, failures.append)

    failures: list[BaseException] = []
    (old, first), (server, there), (new, second) = node(0), node(1), node(0, 1)
    addresses = {0: first.address, 1: there.address}
    first.start(addresses)
    there.start(addresses)
    old.submit([(1, message(step=1))])
    until(old, lambda: old.delivered([1]))
    met: list[int] = []
    there.meet(0, second.address, 1, lambda: met.append(0))
    until(server, lambda: bool(met))
    server.welcome(0, 1)
    old.submit([(1, message(step=2))])  # it does not know yet that it is dead
    new.introduce({1: 0}, {1})
    second.start({1: there.address})
    new.submit([(1, message(step=3))])
    until(new, lambda: new.delivered([1]))
    until(server, lambda: there.dropped.get("of a former life", 0) == 1)
    assert [got.step for got in iter(lambda: take(server, "m"), None) if isinstance(got, Message)] == [1, 3]
    server.submit([(0, message(step=4))])
    until(server, lambda: server.delivered([0]))
    assert isinstance(take(new, "m"), Message)
    assert take(old, "m") is None
    for transport in (first, there, second):
        transport.close()
    assert not failures


def test_who_has_gone_by_the_time_it_is_met_is_gone() -> None:
    """A node that was frozen hears both at once; orders are done in order."""
    pytest.importorskip("zmq")
    from real.transport import ZmqTransport

    agreed, failures, met = wire.Agreed(b"01234567", 2, 1 << 20), list[BaseException](), list[int]()
    made = Endpoint(
        1, agreed, Links(paced=False), allocate=allocate, expose=expose, clock=time.monotonic
    )  # fmt: skip
    transport = ZmqTransport(made, failures.append)
    made.introduce({}, set())

    def introduced() -> None:
        made.welcome(0, 1)
        met.append(1)

    transport.meet(0, transport.address, 1, introduced)
    transport.depart(0)
    transport.start({})
    until(made, lambda: bool(met) and 0 in made.gone)
    assert made.mailbox.left == {0}
    assert [type(item) for item, _ in made.mailbox.items] == [Joined, Left]
    transport.close()
    assert not failures
