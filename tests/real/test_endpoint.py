"""The transport's protocol in memory, on a clock of its own: admission, windows, inboxes, departures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.node import LEFT, Left, Message
from real import wire
from real.errors import WireError
from real.memory import MemoryNetwork
from real.pacing import CREDIT, LEAD, Links
from real.wire import Header

RATE = 1e6


def paced(nodes: int, latency: float = 0.0, overhead: float = 0.0, **options: float) -> MemoryNetwork:
    """A network of ``nodes`` NICs of 1 MB/s."""
    links = Links(True, (RATE,) * nodes, (RATE,) * nodes, (latency / 2,) * nodes, overhead)
    return MemoryNetwork(nodes, links, **options)  # type: ignore[arg-type]


def message(kilobytes: float, tag: str = "m", step: int = 0) -> Message:
    """A message of so many thousand bytes: that many milliseconds at 1 MB/s."""
    return Message(tag, np.arange(int(kilobytes * 250), dtype=np.float32), step)


def arrivals(network: MemoryNetwork, node: int) -> list[tuple[int, int, float]]:
    """(source, step, milliseconds) of what lies in a node's inbox."""
    items = network.endpoints[node].mailbox.items
    return [(m.source, m.step, round((due - 100.0) * 1e3, 6)) for m, due in items if isinstance(m, Message)]


def test_a_message_comes_as_it_was_sent() -> None:
    network = paced(2)
    sent = Message("gradient", np.linspace(0, 1, 5000, dtype=np.float32), 7, 3, 11, 0.25)
    assert network.endpoints[0].submit([(1, sent)])
    network.run()
    got, _ = network.endpoints[1].take(("gradient",), None, None)
    assert isinstance(got, Message)
    assert (got.tag, got.step, got.count, got.versions, got.number, got.source) == (
        "gradient",
        7,
        3,
        11,
        0.25,
        0,
    )
    np.testing.assert_array_equal(got.tensor, sent.tensor)


@pytest.mark.parametrize("tensor", [None, np.zeros(0, np.float32), np.ones(1, np.float64), np.arange(3)])
def test_small_and_empty_tensors_travel(tensor: np.ndarray | None) -> None:
    for network in (paced(2), MemoryNetwork(2)):
        network.endpoints[0].submit([(1, Message("x", tensor))])
        network.run()
        got, _ = network.endpoints[1].take(("x",), 0, 0)
        assert isinstance(got, Message)
        if tensor is None:
            assert got.tensor is None
        else:
            np.testing.assert_array_equal(got.tensor, tensor)


def test_a_paced_message_takes_its_bytes_at_the_slower_nic() -> None:
    links = Links(True, (RATE, RATE), (RATE, RATE / 2), (0.0, 0.0), overhead=1e-3)
    network = MemoryNetwork(2, links)
    network.endpoints[0].submit([(1, message(10))])
    network.run()
    assert arrivals(network, 1) == [(0, 0, 21.0)]


def test_while_its_overhead_lasts_a_message_does_not_move() -> None:
    """As both ends have it, who book their time by that."""
    network = paced(2, overhead=4e-3)
    network.endpoints[0].submit([(1, message(10))])
    network.run()
    for traffic in (network.endpoints[0].moving_out, network.endpoints[1].moving_in):
        ((start, end),) = traffic.spans(0.0, 200.0)
        assert (start - 100.0, end - 100.0) == pytest.approx((4e-3, 14e-3))


def test_the_path_latency_is_paid_once_and_only_on_an_idle_link() -> None:
    network = paced(2, latency=3e-3, window=9)
    network.endpoints[0].submit([(1, message(10, step=0)), (1, message(10, step=1))])
    network.run()
    assert arrivals(network, 1) == [(0, 0, 13.0), (0, 1, 23.0)]


def test_a_receiver_takes_one_message_at_a_time_in_order_of_request() -> None:
    network = paced(4)
    for node, at in ((2, 0.0), (1, 1e-3), (3, 2e-3)):
        network.run(100.0 + at)
        network.endpoints[node].submit([(0, message(10, step=node))])
    network.run()
    assert arrivals(network, 0) == [(2, 2, 10.0), (1, 1, 20.0), (3, 3, 30.0)]


def test_a_sender_moves_one_message_at_a_time_in_order() -> None:
    network = paced(4)
    network.endpoints[0].submit([(2, message(10)), (1, message(10)), (3, message(10))])
    network.run()
    assert [arrivals(network, node)[0][2] for node in (2, 1, 3)] == [10.0, 20.0, 30.0]


def test_what_waits_for_a_busy_receiver_holds_up_what_is_behind_it() -> None:
    network = paced(4)
    network.endpoints[1].submit([(0, message(10))])
    network.run(100.001)
    network.endpoints[2].submit([(0, message(10)), (3, message(10))])
    network.run()
    assert arrivals(network, 0)[1] == (2, 0, 20.0)
    assert arrivals(network, 3) == [(2, 0, 30.0)]


def test_up_and_down_do_not_share() -> None:
    network = paced(2)
    network.endpoints[0].submit([(1, message(10))])
    network.endpoints[1].submit([(0, message(10))])
    network.run()
    assert arrivals(network, 0) == [(1, 0, 10.0)]
    assert arrivals(network, 1) == [(0, 0, 10.0)]


def test_a_host_that_is_late_does_not_delay_the_following_messages() -> None:
    network = paced(3)
    for node in (1, 2):
        network.endpoints[node].submit([(0, message(10))])
    network.settle()
    network.now = 100.0 + 10e-3 - LEAD
    network.settle()
    network.now = 100.0 + 13e-3  # three milliseconds late
    network.run()
    assert [due for _, _, due in arrivals(network, 0)] == [10.0, 20.0]


def test_a_program_that_is_late_through_the_host_starts_as_if_it_had_been_in_time() -> None:
    network = paced(2)
    network.now = 100.0 + 3e-3
    network.endpoints[0].submit([(1, message(10))], lag=3e-3)
    network.run()
    assert arrivals(network, 1) == [(0, 0, 10.0)]
    network.now = 101.0
    network.endpoints[0].submit([(1, message(10))], lag=0.5)
    network.run()
    assert arrivals(network, 1)[1] == (0, 0, round((1.0 - CREDIT + 10e-3) * 1e3, 6))


def test_the_last_byte_is_never_early() -> None:
    network = paced(2)
    network.endpoints[0].submit([(1, message(10))])
    network.run(100.0 + 9.99e-3)
    assert not arrivals(network, 1)
    network.run(100.0 + 10e-3)
    assert len(arrivals(network, 1)) == 1


def test_a_full_window_takes_nothing() -> None:
    network = paced(3)
    first = network.endpoints[0]
    assert first.submit([(1, message(10))])
    assert not first.submit([(1, message(10))])
    assert not first.submit([(2, message(10)), (1, message(10))])
    assert first.undelivered[2] == 0
    assert first.submit([(1, message(10))], window=float("inf"))
    network.run()
    assert first.submit([(1, message(10))])
    assert first.delivered([2])
    assert not first.delivered([1, 2])


def test_a_full_inbox_is_not_granted_and_lets_others_pass() -> None:
    network = paced(4, window=9, inbox=2)
    network.endpoints[0].submit([(1, message(10, step=step)) for step in range(3)] + [(2, message(10))])
    network.run(100.015)
    network.endpoints[3].submit([(1, message(10, step=9))])
    network.run()
    assert [(source, step) for source, step, _ in arrivals(network, 1)] == [(0, 0), (0, 1), (3, 9)]
    assert arrivals(network, 2) == [(0, 0, 30.0)]
    network.endpoints[1].take(("m",), 0, None)
    network.run()
    assert [(source, step) for source, step, _ in arrivals(network, 1)] == [(0, 1), (3, 9), (0, 2)]


def test_a_message_that_was_put_aside_keeps_its_place_in_its_pair() -> None:
    network = paced(3, window=9, inbox=1)
    network.endpoints[0].submit([(1, message(1, step=step)) for step in range(4)] + [(2, message(1))])
    network.run()
    read = []
    for _ in range(4):
        got, _ = network.endpoints[1].take(("m",), None, None)
        assert isinstance(got, Message)
        read.append(got.step)
        network.run()
    assert read == [0, 1, 2, 3]


def test_native_links_move_so_many_messages_at_once() -> None:
    network = MemoryNetwork(4, slots=2, window=9)
    requests = [Header(wire.REQ, node, 0, "m", "float32", total=400) for node in (1, 2, 3)]
    receiver = network.endpoints[0]
    for request in requests:
        receiver.on_frame(request)
    granted = [to for to, packed, _ in receiver.tick() if packed[wire.KIND_AT] == wire.GRANT]
    assert granted == [1, 2]
    receiver.on_frame(Header(wire.DATA, 1, 0, "m", "float32", total=400), memoryview(bytes(400)))
    assert wire.GRANT in [packed[wire.KIND_AT] for to, packed, _ in receiver.tick() if to == 3]


def test_departures_come_after_the_last_message() -> None:
    network = paced(2)
    sender, receiver = network.endpoints
    sender.submit([(1, message(1))])
    network.run()
    sender.say(wire.BYE, [1], step=4)
    network.run()
    first, _ = receiver.take(("m", LEFT), None, None)
    second, _ = receiver.take(("m", LEFT), None, None)
    assert isinstance(first, Message)
    assert second == Left(0)
    assert receiver.ended == {0: 4}
    assert receiver.take(("m",), 0, None)[0] == Left(0)
    assert receiver.take(("m",), None, None)[0] is None


def test_the_dead_free_what_they_held() -> None:
    network = paced(3)
    receiver = network.endpoints[0]
    network.endpoints[1].submit([(0, message(10))])
    network.run(100.004)
    network.endpoints[2].submit([(0, message(10))])
    receiver.submit([(1, message(10))])
    network.run(100.005)
    receiver.depart(1)
    network.endpoints[2].depart(1)
    network.run()
    assert arrivals(network, 0) == [(2, 0, 15.0)]
    assert receiver.delivered([1])
    assert receiver.submit([(1, message(10))] * 5)
    assert receiver.delivered([1])


def test_an_ended_node_still_takes_what_is_under_way_and_throws_it_away() -> None:
    network = paced(3, window=9, inbox=1)
    network.endpoints[0].submit([(1, message(1, step=step)) for step in range(5)])
    network.run()
    assert network.endpoints[0].undelivered[1] == 4
    network.endpoints[1].discard()
    network.run()
    assert network.endpoints[0].delivered([1])
    assert not network.endpoints[1].mailbox.items


UNFIT = [
    (1, Message("x", np.ones(3, np.float64)), "24 bytes of float64; agreed were at most 16"),
    (1, Message("a tag", None), "printable"),
    (1, Message("t" * 33, None), "longer than 32"),
    (1, Message("x", None, step=1.5), "integer"),  # type: ignore[arg-type]
    (0, Message("x", None), "another one of nodes 0 to 1"),
    (2, Message("x", None), "another one of nodes 0 to 1"),
]


@pytest.mark.parametrize(("to", "unfit", "says"), UNFIT)
def test_what_a_receiver_would_refuse_is_not_even_taken(to: int, unfit: Message, says: str) -> None:
    network = MemoryNetwork(2, max_bytes=16)
    sender = network.endpoints[0]
    with pytest.raises(ValueError, match=says):
        sender.submit([(1, Message("x", np.ones(4, np.float32))), (to, unfit)])
    assert sender.delivered([1])
    assert not sender.tick()


def test_what_moves_and_what_is_due_is_told_from_what_is_stuck() -> None:
    network = paced(2)
    sender, receiver = network.endpoints
    sender.submit([(1, message(100))])
    network.run(100.01)
    assert sender.timed()
    before = receiver.moved
    network.run(100.05)
    assert receiver.moved > before
    receiver.depart(0)
    network.run()
    before = sender.moved
    network.now += 100.0
    network.settle()
    assert not sender.delivered([1])
    assert not sender.timed()
    assert not receiver.timed()
    assert sender.moved == before


HOSTILE = [
    ("without a grant", Header(wire.DATA, 1, 0, "m", "float32", total=8)),
    ("asks for 5", Header(wire.REQ, 1, 5, "m", "float32", total=8)),
    ("does not send to itself", Header(wire.REQ, 0, 0, "m", "float32", total=8)),
    ("did not ask", Header(wire.GRANT, 1, 0)),
    ("not under way", Header(wire.DONE, 1, 0)),
]


@pytest.mark.parametrize(("says", "header"), HOSTILE)
def test_frames_that_do_not_follow_are_refused(says: str, header: Header) -> None:
    network = MemoryNetwork(2)
    payload = memoryview(bytes(8)) if header.kind == wire.DATA else None
    with pytest.raises(WireError, match=says):
        network.endpoints[0].on_frame(header, payload)


def test_data_must_continue_where_it_stopped_and_be_what_was_asked_for() -> None:
    network = MemoryNetwork(2)
    receiver = network.endpoints[0]
    receiver.on_frame(Header(wire.REQ, 1, 0, "m", "float32", total=16))
    for change in ({"offset": 8}, {"total": 8}, {"dtype": "float16"}, {"sequence": 1}):
        fields = {"sequence": 0, "tag": "m", "dtype": "float32", "total": 16} | change
        with pytest.raises(WireError, match="does not follow"):
            receiver.on_frame(Header(wire.DATA, 1, **fields), memoryview(bytes(8)))  # type: ignore[arg-type]


sends = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 40)), max_size=25)


@given(sends, st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(1, 2))
def test_everything_arrives_once_and_in_order(
    plan: list[tuple[int, int, int]], window: int, inbox: int, is_paced: bool, slots: int
) -> None:
    """Whatever is sent and however slowly it is read: nothing is lost, doubled or overtaken in its pair."""
    network = (
        paced(4, window=window, inbox=inbox)
        if is_paced
        else MemoryNetwork(4, slots=slots, window=window, inbox=inbox)
    )
    waiting = [(a, b, message(size / 4, step=i)) for i, (a, b, size) in enumerate(plan) if a != b]
    expected = {(a, b): [m.step for x, y, m in waiting if (x, y) == (a, b)] for a, b, _ in waiting}
    read: dict[tuple[int, int], list[int]] = {pair: [] for pair in expected}
    for _ in range(4 * len(waiting) + 4):
        waiting = [(a, b, m) for a, b, m in waiting if not network.endpoints[a].submit([(b, m)])]
        network.run()
        for endpoint in network.endpoints:
            got, _ = endpoint.take(("m",), None, None)
            if isinstance(got, Message):
                read[got.source, endpoint.me].append(got.step)
        assert all(count <= inbox for e in network.endpoints for count in e.mailbox.unread.values())
    assert read == expected
