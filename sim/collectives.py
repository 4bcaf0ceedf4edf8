"""Closed-form all-reduce: what a ring costs when all workers are in step.

Rules this module obeys:

* Ring (Patarasuk and Yuan 2009): 2 (n-1) steps, in each of which every worker sends one n-th of the
  tensor to its right-hand neighbour; T = 2 (n-1) (alpha + bytes / n / bandwidth).
* alpha is the largest latency on the ring plus the overhead per message, bandwidth that of the link
  with the least room per ring connection through it; the scenario may give both.
* It starts when all workers that have not ended have joined; until then they wait, then receive. A
  crash in its course starts it anew among the survivors.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from core.collectives import completed
from core.record import PARTS
from scenarios.schema import Network as NetworkSettings
from sim.clock import Alarm
from sim.fluid import Link
from sim.network import Network

if TYPE_CHECKING:
    from sim.checkpoint import Registry
    from sim.host import Host
    from sim.programs import Pump

__all__ = ["NativeAllReduce", "ring_seconds"]

WAIT, RECEIVE = PARTS.index("wait"), PARTS.index("receive")


def ring_seconds(members: int, nbytes: float, alpha: float, bandwidth: float) -> float:
    """Seconds of a ring all-reduce of ``nbytes`` over ``members``: 2 (n-1) (alpha + nbytes/n/bandwidth)."""
    return 2 * (members - 1) * (alpha + nbytes / members / bandwidth) if members > 1 else 0.0


def _ring_path(network: Network, members: Sequence[Host]) -> tuple[float, float]:
    """(largest latency with overhead, least bytes/s per connection) of the ring over ``members`` in order."""
    uses: dict[Link, int] = {}
    latency = 0.0
    for i, host in enumerate(members):
        pair = network.pair(host, members[(i + 1) % len(members)])
        latency = max(latency, pair.latency + pair.overhead)
        for link in pair.path:
            uses[link] = uses.get(link, 0) + 1
    return latency, min(link.capacity / count for link, count in uses.items())


class NativeAllReduce(Alarm):
    """All workers meet, and after the closed form's time all go on with the mean.

    ``active``, which the driver keeps, holds the workers that have not ended, in order of rank. While
    ``registry`` is hollow, tensors have no values that could be averaged.
    """

    registry: Registry | None = None

    def __init__(self, network: Network, settings: NetworkSettings, active: Collection[Host]) -> None:
        self._network, self._settings, self._active = network, settings, active
        self._joined: dict[int, tuple[Pump, Any]] = {}
        self._members: tuple[Host, ...] = ()
        self._due = -1.0

    def join(self, pump: Pump, tensor: Any) -> None:
        """``pump``'s worker contributes ``tensor``."""
        self._joined[pump.host.id] = (pump, tensor)
        pump.host.mark = self._network.clock._now
        self.check()

    def leave(self, host: Host) -> None:
        """``host`` has ended or died."""
        if self._joined.pop(host.id, None) is not None and self._due >= 0:
            self._book(RECEIVE, exclude=host.id)
            self._due = -1.0
        self.check()

    def check(self) -> None:
        """Start if everybody is there."""
        if self._due >= 0 or not self._joined or len(self._joined) < len(self._active):
            return
        members = tuple(self._active)
        self._book(WAIT)
        if members != self._members:
            self._members = members
            latency, rate = _ring_path(self._network, members) if len(members) > 1 else (0.0, 1.0)
            self._alpha = self._settings.allreduce_alpha or latency
            self._rate = self._settings.allreduce_bandwidth or rate
        nbytes = max(tensor.nbytes for _, tensor in self._joined.values())
        now = self._network.clock._now
        self._due = now + ring_seconds(len(members), nbytes, self._alpha, self._rate)
        self._network.clock.at(self._due, self)

    def _book(self, kind: int, exclude: int = -1) -> None:
        now = self._network.clock._now
        for rank, (pump, _) in self._joined.items():
            host = pump.host
            if rank != exclude:
                if kind == WAIT:
                    host.wait += now - host.mark
                else:
                    host.receive += now - host.mark
                if host.spans is not None and now > host.mark:
                    host.spans.append((rank, kind, host.mark, now))
                host.mark = now

    def fire(self) -> None:
        """Done: every tensor holds the mean, every program goes on."""
        if self._network.clock._now != self._due:
            return
        self._book(RECEIVE)
        joined = sorted(self._joined.items())
        self._joined, self._due = {}, -1.0
        if self.registry is None or not self.registry.hollow:
            _average([tensor for _, (_, tensor) in joined])
        for _, (pump, tensor) in joined:
            completed(pump.host.node, tensor)
        for _, (pump, _) in joined:
            pump.run(None)


def _average(tensors: list[Any]) -> None:
    """Put the mean into all of them; Phantoms have no values."""
    first = tensors[0]
    if len(tensors) < 2 or not hasattr(first, "__add__"):
        return
    total = first.clone() if hasattr(first, "clone") else first.copy()
    for tensor in tensors[1:]:
        total += tensor
    total /= len(tensors)
    for tensor in tensors:
        tensor[:] = total
