"""Admission on the bare network: grants, slots, latency, full inboxes, local traffic."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.schema import Machine
from sim.alarm import Alarm
from sim.clock import Clock
from sim.endpoint import Endpoint
from sim.network import Network, Transfer

Sent = tuple[float, int, int, float]


class Node(Endpoint):
    """Notes deliveries; reads at once unless told to keep its inbox full."""

    __slots__ = ("log", "reads")

    def __init__(self, id: int, log: list[tuple[int, float]], reads: bool) -> None:
        super().__init__(id)
        self.log, self.reads = log, reads

    def delivered(self, transfer: Transfer) -> None:
        self.log.append((transfer.message, transfer.pair.network.clock.now))
        if self.reads:
            transfer.pair.read()


class Send(Alarm):
    def __init__(self, network: Network, ends: tuple[Node, Node], index: int, nbytes: float) -> None:
        self.network, self.ends, self.index, self.nbytes = network, ends, index, nbytes

    def fire(self) -> None:
        self.network.pair(*self.ends).send(self.index, self.nbytes)


def deliveries(
    sends: list[Sent],
    machine_of: list[int],
    *,
    deaf: tuple[int, ...] = (),
    latency: float = 0.0,
    handover: float = 0.0,
    **options: object,
) -> dict[int, float]:
    """When each send (time, source, target, bytes) is delivered; machines have 1 byte/s NICs."""
    clock = Clock()
    machines = [
        Machine(f"m{i}", up=1.0, down=1.0, latency=latency / 2, local_bandwidth=10.0, local_latency=0.0)
        for i in range(max(machine_of) + 1)
    ]
    network = Network(clock, machines, **options)  # type: ignore[arg-type]
    network.handover = handover
    log: list[tuple[int, float]] = []
    nodes = [Node(i, log, i not in deaf) for i in range(len(machine_of))]
    for node, machine in zip(nodes, machine_of, strict=True):
        network.attach(node, machine)
    for i, (time, source, target, nbytes) in enumerate(sends):
        clock.at(time, Send(network, (nodes[source], nodes[target]), i, nbytes))
    clock.drain()
    return dict(log)


def test_fifo_serves_one_sender_after_the_other_in_order_of_request() -> None:
    assert deliveries([(0, 0, 2, 5), (1, 1, 2, 5)], [0, 1, 2]) == {0: 5, 1: 10}


@pytest.mark.parametrize(
    ("sends", "ends"),
    [
        ([(0, 0, 2, 5), (1, 1, 2, 5)], {0: 5, 1: 11}),  # it has waited for another's message
        ([(0, 0, 2, 5), (1, 0, 2, 5)], {0: 5, 1: 10}),  # for one of its own connection
        ([(0, 2, 0, 5), (1, 2, 1, 5)], {0: 5, 1: 11}),  # at the sender
        ([(0, 0, 2, 5), (5.5, 1, 2, 5)], {0: 5, 1: 10.5}),  # for nobody
        ([(0, 0, 2, 5), (1, 0, 2, 5), (2, 1, 2, 5), (3, 0, 2, 5)], {0: 5, 2: 11, 1: 17, 3: 22}),
    ],
    ids=["receiver", "connection", "sender", "idle", "turns"],
)
def test_a_link_rests_before_it_is_handed_over(sends: list[Sent], ends: dict[int, float]) -> None:
    assert deliveries(sends, [0, 1, 2], handover=1.0) == ends


def test_before_a_message_that_takes_over_a_link_rests_for_the_overhead_too() -> None:
    found = deliveries([(0, 0, 2, 5), (1, 1, 2, 5)], [0, 1, 2], handover=1.0, overhead=0.25)
    assert found == {0: 5.25, 1: 11.5}


def test_fair_shares_the_receivers_link() -> None:
    assert deliveries([(0, 0, 2, 5), (0, 1, 2, 5)], [0, 1, 2], admission="fair") == {0: 10, 1: 10}


def test_fair_holds_every_link_to_its_rate_when_many_flows_start_in_one_instant() -> None:
    """Four senders to the same two receivers: each downlink carries four flows, none goes faster.

    (A lazy solver that looks at the first link of a new flow only lets the second receiver's
    flows at three times its downlink's rate: docs/decisions.md.)
    """
    sends = [(0.0, source, target, 1.0) for source in (2, 3, 4, 5) for target in (0, 1)]
    assert deliveries(sends, [0, 1, 2, 3, 4, 5], admission="fair") == pytest.approx(
        dict.fromkeys(range(8), 4.0)
    )


def test_two_slots_let_two_move_and_the_third_wait() -> None:
    sends = [(0, 0, 3, 4), (0, 1, 3, 4), (0, 2, 3, 4)]
    assert deliveries(sends, [0, 1, 2, 3], admission=2) == {0: 8, 1: 8, 2: 12}


def test_a_node_sends_in_order_even_when_a_later_receiver_is_free() -> None:
    sends = [(0, 1, 2, 6), (1, 0, 2, 3), (1, 0, 3, 3)]
    assert deliveries(sends, [0, 1, 2, 3]) == {0: 6, 1: 9, 2: 12}


def test_a_grant_costs_latency_only_on_an_idle_link() -> None:
    sends = [(0, 0, 1, 5), (0, 0, 2, 5), (0, 0, 1, 5)]
    assert deliveries(sends, [0, 1, 2], latency=1.0) == {0: 6, 1: 11, 2: 16}
    assert deliveries([(0, 0, 1, 5), (5.5, 0, 2, 5)], [0, 1, 2], latency=1.0) == {0: 6, 1: 11.5}


def test_overhead_occupies_the_slot() -> None:
    sends = [(0, 0, 2, 5), (0, 1, 2, 5)]
    assert deliveries(sends, [0, 1, 2], overhead=0.5) == {0: 5.5, 1: 11}


def test_fair_pays_latency_and_overhead_before_it_flows() -> None:
    sends = [(0, 0, 2, 5), (0, 1, 2, 5)]
    assert deliveries(sends, [0, 1, 2], admission="fair", latency=1, overhead=0.5) == {0: 11.5, 1: 11.5}


def test_nodes_on_one_machine_share_its_slot() -> None:
    assert deliveries([(0, 0, 2, 5), (0, 1, 3, 5)], [0, 0, 1, 2]) == {0: 5, 1: 10}
    assert deliveries([(0, 2, 0, 5), (0, 3, 1, 5)], [0, 0, 1, 2]) == {0: 5, 1: 10}


def test_a_receiver_passes_over_a_sender_whose_slot_is_taken() -> None:
    """Node 1 asks node 3 while its machine's uplink is busy with node 0's message: node 2 goes first."""
    sends = [(0, 0, 4, 10), (1, 1, 3, 2), (2, 2, 3, 3)]
    assert deliveries(sends, [0, 0, 1, 2, 3]) == {0: 10, 2: 5, 1: 12}


def test_local_messages_use_neither_slot_nor_nic() -> None:
    sends = [(0, 0, 1, 20), (0, 0, 2, 5)]
    assert deliveries(sends, [0, 0, 1]) == {0: 2, 1: 5}


def test_a_full_inbox_holds_up_only_its_own_connection() -> None:
    sends = [(0, 0, 1, 1), (0, 0, 1, 1), (0, 0, 1, 1), (0, 0, 2, 1), (4, 3, 1, 1)]
    found = deliveries(sends, [0, 1, 2, 3], deaf=(1,), inbox=2)
    assert found == {0: 1, 1: 2, 3: 3, 4: 5}


@pytest.mark.parametrize(("admission", "expected"), [("fifo", {0: 8, 1: 8}), ("fair", {0: 8, 1: 8})])
def test_a_further_link_on_the_path_is_shared(admission: str, expected: dict[int, float]) -> None:
    """Two pairs of machines in different racks, whose uplink carries half of what the NICs could."""

    def rack(source: int, target: int) -> list[tuple[str, float]]:
        return [("uplink", 1.0)] if (source < 2) != (target < 2) else []

    sends = [(0, 0, 2, 4), (0, 1, 3, 4)]
    assert deliveries(sends, [0, 1, 2, 3], admission=admission, routes=rack) == expected
    assert deliveries([(0, 0, 1, 4), (0, 2, 3, 4)], [0, 1, 2, 3], routes=rack) == {0: 4, 1: 4}


@pytest.mark.parametrize("admission", ["fifo", 2, "fair"])
def test_a_withheld_message_follows_once_its_receiver_reads(admission: str | int) -> None:
    clock = Clock()
    network = Network(clock, [Machine(f"m{i}", 1.0, 1.0) for i in range(2)], admission=admission, inbox=1)
    log: list[tuple[int, float]] = []
    a, b = Node(0, log, True), Node(1, log, False)
    network.attach(a, 0)
    network.attach(b, 1)

    class Read(Alarm):
        def fire(self) -> None:
            network.pair(a, b).read()

    for i in range(3):
        clock.at(0, Send(network, (a, b), i, 2))
    clock.at(10, Read())
    clock.at(20, Read())
    clock.drain()
    assert log == [(0, 2), (1, 12), (2, 22)]


sends = st.lists(
    st.tuples(st.floats(0, 10), st.integers(0, 5), st.integers(0, 5), st.floats(0, 5)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=120, deadline=None)
@given(sends, st.lists(st.integers(0, 3), min_size=6, max_size=6), st.sampled_from(["fifo", 2, 3, "fair"]),
       st.sampled_from([1, 2, inf]), st.sampled_from([0.0, 0.3]))  # fmt: skip
def test_everything_arrives_in_order_and_no_nic_carries_more_than_it_can(
    found: list[Sent], machine_of: list[int], admission: str | int, inbox: float, latency: float
) -> None:
    """For any traffic: all is delivered, pairs keep their order, and bytes fit through the NICs."""
    log = deliveries(found, machine_of, admission=admission, inbox=inbox, latency=latency)
    assert len(log) == len(found)
    first = min(time for time, *_ in found)
    for pair in {(source, target) for _, source, target, _ in found}:
        ordered = sorted(range(len(found)), key=lambda i: (found[i][0], i))
        times = [log[i] for i in ordered if found[i][1:3] == pair]
        assert times == sorted(times)
    for machine in set(machine_of):
        for side in (1, 2):
            own = [
                i for i, send in enumerate(found)
                if machine_of[send[side]] == machine and machine_of[send[1]] != machine_of[send[2]]
            ]  # fmt: skip
            if own:
                assert max(log[i] for i in own) - first >= sum(found[i][3] for i in own) - 1e-9
