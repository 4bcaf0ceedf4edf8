"""Nic: a machine's network card, its two links, their slots, and who waits for them.

Rules this module obeys:

* Requests are granted in order of their arrival, as far as slots at both ends and inboxes go
  (``sim.network`` has the rules). One that must wait for the sender's slot waits there, and is passed.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from sim.alarm import Alarm
from sim.endpoint import MachineLike
from sim.fluid import Link
from sim.phases import ASKING

if TYPE_CHECKING:
    from sim.network import Network, Pair, Transfer

__all__ = ["Nic"]


class Nic(Alarm):
    """A machine's NIC: its two links, their slots, and the requests that wait at it.

    last_in, last_out  whose messages left a slot last, where hand-overs cost time
    """

    __slots__ = (
        "_local", "blocked", "down", "free_in", "free_out", "index", "last_in", "last_out", "latency",
        "local_bandwidth", "local_latency", "network", "requests", "up", "wake",
    )  # fmt: skip

    def __init__(self, network: Network, index: int, machine: MachineLike) -> None:
        self.network, self.index = network, index
        self.up, self.down = Link(network.fluid, machine.up), Link(network.fluid, machine.down)
        self.local_bandwidth = machine.local_bandwidth
        self._local: Link | None = None
        self.latency, self.local_latency = machine.latency, machine.local_latency
        self.free_in = self.free_out = network.slots
        self.requests: list[tuple[float, int, Transfer]] = []
        self.blocked: list[tuple[float, int, Transfer]] = []
        self.last_in: Pair | None = None
        self.last_out: Pair | None = None
        self.wake = inf

    @property
    def local(self) -> Link:
        """What nodes on this machine send one another over; few machines need one."""
        if self._local is None:
            self._local = Link(self.network.fluid, self.local_bandwidth)
        return self._local

    def fire(self) -> None:
        """A request has arrived."""
        if self.wake <= self.network.clock._now:
            self.wake = inf
        self.grant()

    def grant(self) -> None:
        """Grant arrived requests, earliest first, as far as slots and inboxes go."""
        requests, network = self.requests, self.network
        now = network.clock._now
        while requests and self.free_in:
            arrival, _, transfer = requests[0]
            if arrival > now:
                if arrival < self.wake:
                    self.wake = arrival
                    network.clock.at(arrival, self)
                return
            entry = heappop(requests)
            if transfer.phase != ASKING:
                continue
            pair = transfer.pair
            if pair.unread >= network.inbox:
                pair.withheld = entry
                transfer.step_aside()
                continue
            nic = pair.source.nic
            if not nic.free_out:
                heappush(nic.blocked, entry)
                continue
            nic.free_out -= 1
            self.free_in -= 1
            transfer.move(now)

    def unblock(self) -> None:
        """A slot of the uplink is free: requests that were passed over for it stand again."""
        blocked = self.blocked
        while blocked and self.free_out:
            entry = heappop(blocked)
            nic = entry[2].pair.target.nic
            heappush(nic.requests, entry)
            nic.grant()
