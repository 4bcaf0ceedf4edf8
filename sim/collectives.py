"""Native all-reduce: all workers meet, and after the closed form's time go on with the mean.

Rules this module obeys:

* How long it takes is ``sim.reductions``'s business.
* It starts when all workers that have not ended have joined; until then they wait, then receive. A
  crash in its course starts it anew among the survivors.
* While a member is silent (frozen, or cut off) it rests, and goes on where it was.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from core.collectives import Choice, completed
from core.record import PARTS
from core.tensors import Tensors
from scenarios.schema import Network as NetworkSettings
from sim.alarm import Alarm
from sim.network import Network
from sim.reductions import reduction_cost

if TYPE_CHECKING:
    from sim.checkpoint import Registry
    from sim.host import Host
    from sim.programs import Pump

__all__ = ["NativeAllReduce"]

WAIT, RECEIVE = PARTS.index("wait"), PARTS.index("receive")


class NativeAllReduce(Alarm):
    """All workers meet, and after the closed form's time all go on with the mean.

    ``active``, which the driver keeps, holds the workers that have not ended, in order of rank. While
    ``registry`` is hollow, tensors have no values that could be averaged.
    """

    registry: Registry | None = None

    def __init__(
        self, network: Network, settings: NetworkSettings, choice: Choice, active: Collection[Host]
    ) -> None:
        self._network, self._settings, self._choice, self._active = network, settings, choice, active
        self._joined: dict[int, tuple[Pump, Any]] = {}
        self._members: tuple[Host, ...] = ()
        self._due = -1.0
        self._silent: set[Host] = set()
        self._rest: float | None = None

    def join(self, pump: Pump, tensor: Any) -> None:
        """``pump``'s worker contributes ``tensor``."""
        self._joined[pump.host.id] = (pump, tensor)
        pump.host.mark = self._network.clock._now
        self.check()

    def leave(self, host: Host) -> None:
        """``host`` has ended or died."""
        self._silent.discard(host)
        if self._joined.pop(host.id, None) is not None:
            self._rest = None
            if self._due >= 0:
                self._book(RECEIVE, exclude=host.id)
                self._due = -1.0
        self.check()

    def hush(self, host: Host) -> None:
        """``host`` is silent from now on."""
        self._silent.add(host)
        if self._due >= 0 and host.id in self._joined:
            self._book(RECEIVE)
            self._rest, self._due = self._due - self._network.clock._now, -1.0

    def restore(self, host: Host) -> None:
        """``host`` is silent no more."""
        self._silent.discard(host)
        self.check()

    def check(self) -> None:
        """Start if everybody is there."""
        if self._due >= 0 or not self._joined or len(self._joined) < len(self._active):
            return
        members = tuple(self._active)
        if self._silent and not self._silent.isdisjoint(members):
            return
        self._book(WAIT)
        if members != self._members:
            self._members = members
            self._cost = reduction_cost(self._network, self._settings, self._choice, members)
        nbytes = max(tensor.nbytes for _, tensor in self._joined.values())
        now = self._network.clock._now
        self._due = now + (self._cost(nbytes) if self._rest is None else self._rest)
        self._rest = None
        self._network.clock.at(self._due, self)

    @property
    def kind(self) -> int:
        """What its workers are about now: the kind of a span."""
        return RECEIVE if self._due >= 0 else WAIT

    def halt(self) -> None:
        """The run ends in its midst: book what was under way until now."""
        self._book(self.kind)

    def _book(self, kind: int, exclude: int = -1) -> None:
        now = self._network.clock._now
        for rank, (pump, _) in self._joined.items():
            host = pump.host
            if rank != exclude:
                if host.backward is None:
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
    total = Tensors.copy_of(first)
    for tensor in tensors[1:]:
        total += tensor
    total /= len(tensors)
    for tensor in tensors:
        tensor[:] = total
