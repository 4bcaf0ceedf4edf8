"""Oracle cases that run on the network itself, without node programs: transfers, gossip, rendezvous.

Rules this module obeys:

* Every flow has endpoints of its own, so that no two flows are of one connection and none waits for
  another one to end.
* A flow from a host to itself takes that host's NIC both ways, as any other: for transfers all hosts are
  two machines each, that which sends and that which receives.
* Gossip: a worker computes, then exchanges with a neighbour; both directions start at once, the
  neighbour is not disturbed. ``locked``: it first takes its neighbour's lock, first come first served.
* Rendezvous ring: chunk q goes from i to i+1 once both have come to step q. A worker's next step
  begins when both its send and its receive of this step are over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from math import inf

from scenarios.schema import Machine
from sim.alarm import Alarm
from sim.clock import Clock
from sim.endpoint import Endpoint
from sim.network import Network, Transfer
from sim.oracle import NetCase, RunCase

__all__ = ["gossip", "rendezvous", "transfers"]


class _Ear(Endpoint):
    """An endpoint that passes deliveries on."""

    __slots__ = ("_told",)

    def __init__(self, id: int, told: Callable[[Transfer], None]) -> None:
        super().__init__(id)
        self._told = told

    def delivered(self, transfer: Transfer) -> None:
        self._told(transfer)


def _network(clock: Clock, case: NetCase | RunCase, times: int = 1) -> Network:
    """The hosts of ``case``, so many ``times`` one after the other."""
    sides = list(zip(case.up, case.down, case.latency, strict=True)) * times
    machines = [Machine(f"m{i}", up, down, latency) for i, (up, down, latency) in enumerate(sides)]
    return Network(clock, machines, admission="fair", inbox=inf)


def _counter(network: Network) -> Iterator[int]:
    """Its first value is the number of messages that ``network`` has delivered by then."""
    delivered = count()

    def observe(_: Transfer) -> None:
        next(delivered)

    network.observer = observe
    return delivered


class _Start(Alarm):
    def __init__(self, network: Network, ends: tuple[_Ear, _Ear], index: int, nbytes: float) -> None:
        self._network, self._ends, self._index, self._nbytes = network, ends, index, nbytes

    def fire(self) -> None:
        self._network.pair(*self._ends).send(self._index, self._nbytes)


def transfers(case: NetCase) -> list[float]:
    """When each flow's last byte arrives, seconds."""
    clock = Clock()
    network = _network(clock, case, 2)
    ends = [-1.0] * len(case.flows)

    def told(transfer: Transfer) -> None:
        ends[transfer.message] = clock.now

    for i, (source, target, nbytes, start) in enumerate(case.flows):
        pair = (_Ear(2 * i, told), _Ear(2 * i + 1, told))
        for ear, machine in zip(pair, (source, target + len(case.up)), strict=True):
            network.attach(ear, machine)
        clock.at(start, _Start(network, pair, i, nbytes))
    clock.drain()
    return ends


class _Gossiper(Alarm):
    """One worker: computes, exchanges, and again."""

    def __init__(self, rank: int, case: RunCase, network: Network, peers: list[_Gossiper]) -> None:
        self.rank, self.case, self.network, self.peers = rank, case, network, peers
        self.ends: list[float] = []
        self.holder: _Gossiper | None = None
        self.queue: deque[_Gossiper] = deque()
        self.under_way = 0

    def compute(self) -> None:
        if len(self.ends) < self.case.iterations:
            clock = self.network.clock
            clock.at(clock.now + self.case.compute[self.rank], self)

    @property
    def neighbour(self) -> _Gossiper:
        return self.peers[(self.rank + self.case.neighbours[self.rank][len(self.ends)]) % len(self.peers)]

    def fire(self) -> None:
        other = self.neighbour
        if not self.case.locked:
            self.exchange()
        elif other.holder is None:
            other.holder = self
            self.exchange()
        else:
            other.queue.append(self)

    def exchange(self) -> None:
        here, there = _Ear(0, self.told), _Ear(1, self.told)
        self.network.attach(here, self.rank)
        self.network.attach(there, self.neighbour.rank)
        self.under_way = 2
        self.network.pair(here, there).send(None, self.case.model)
        self.network.pair(there, here).send(None, self.case.model)

    def told(self, transfer: Transfer) -> None:
        self.under_way -= 1
        if self.under_way:
            return
        other = self.neighbour
        self.ends.append(self.network.clock.now)
        if self.case.locked:
            other.holder = other.queue.popleft() if other.queue else None
            if other.holder is not None:
                other.holder.exchange()
        self.compute()


def gossip(case: RunCase) -> tuple[list[list[float]], int]:
    """When each iteration of each worker ends, seconds; and how many messages were delivered."""
    clock = Clock()
    network = _network(clock, case)
    delivered = _counter(network)
    peers: list[_Gossiper] = []
    peers += [_Gossiper(rank, case, network, peers) for rank in range(case.workers)]
    for peer in peers:
        peer.compute()
    clock.drain()
    return [peer.ends for peer in peers], next(delivered)


class _Link(Alarm):
    """One worker of a rendezvous ring; ``step`` counts its chunks since the start of the run."""

    def __init__(self, rank: int, case: RunCase, network: Network, peers: list[_Link]) -> None:
        self.rank, self.case, self.network, self.peers = rank, case, network, peers
        self.step, self.entered = 0, -1
        self.open = 0
        self.ends: list[float] = []
        self.per_round = 2 * (case.workers - 1)
        self.ears = tuple(_Ear(2 * rank + side, self.told) for side in (0, 1))
        network.attach(self.ears[0], rank)
        network.attach(self.ears[1], (rank + 1) % case.workers)

    def compute(self) -> None:
        if len(self.ends) < self.case.iterations:
            clock = self.network.clock
            clock.at(clock.now + self.case.compute[self.rank], self)

    def fire(self) -> None:
        """Come to a step; what both ends have come to starts."""
        self.entered, self.open = self.step, 2
        left, right = self.peers[self.rank - 1], self.peers[(self.rank + 1) % len(self.peers)]
        if right.entered == self.step:
            self.network.pair(*self.ears).send(right, self.case.gradient)
        if left.entered == self.step:
            self.network.pair(*left.ears).send(self, self.case.gradient)

    def told(self, transfer: Transfer) -> None:
        self.over()
        transfer.message.over()

    def over(self) -> None:
        """One of this step's two transfers has ended."""
        self.open -= 1
        if self.open:
            return
        self.step += 1
        if self.step % self.per_round:
            self.fire()
        else:
            self.ends.append(self.network.clock.now)
            self.compute()


def rendezvous(case: RunCase) -> tuple[list[list[float]], int]:
    """As ``gossip``, for a ring whose receivers must be ready."""
    clock = Clock()
    network = _network(clock, case)
    delivered = _counter(network)
    peers: list[_Link] = []
    peers += [_Link(rank, case, network, peers) for rank in range(case.workers)]
    for peer in peers:
        peer.compute()
    clock.drain()
    return [peer.ends for peer in peers], next(delivered)
