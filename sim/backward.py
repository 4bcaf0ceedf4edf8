"""A step whose gradient is produced piece by piece, while its program already goes on.

Rules this module obeys:

* A piece is there after its share of the step's time; on a shared device the shares are its work.
* As long as it is under way the worker's time is compute, whatever its program does or waits for
  meanwhile: the host books nothing else. When it ends, what the program is blocked in begins to count.
* The step counts when its last piece is there. A worker that is stopped makes no pieces meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.record import PARTS
from sim.alarm import Alarm

if TYPE_CHECKING:
    from sim.programs import Pump

__all__ = ["Backward"]

COMPUTE = PARTS.index("compute")


class Backward(Alarm):
    """``made`` pieces are there, ``taken`` have been asked for; ``ready`` are their shares of the step."""

    __slots__ = (
        "_base",
        "_before",
        "_factor",
        "_pump",
        "gradient",
        "made",
        "ready",
        "start",
        "stopped",
        "taken",
    )

    def __init__(self, pump: Pump, ready: tuple[float, ...], base: float, factor: float) -> None:
        self._pump, self.ready, self._base, self._factor = pump, ready, base, factor
        self.start = pump.driver.clock._now
        self._before = pump.idled
        self.made, self.taken = 0, 1
        self.gradient: Any = None
        self._produce()

    @property
    def waited_for(self) -> bool:
        """Whether the piece that was asked for last is not there yet."""
        return self.made < self.taken

    def _produce(self) -> None:
        """Begin the next piece."""
        device, share = self._pump.host.device, self.ready[self.made]
        self.stopped = self._pump.idled
        if device is None:
            clock = self._pump.driver.clock
            clock.at(self.start + self._base * self._factor * share + (self.stopped - self._before), self)
        else:
            before = self.ready[self.made - 1] if self.made else 0.0
            device.run(self, self._base * (share - before), self._factor)

    def fire(self) -> None:
        """One more piece is there."""
        pump = self._pump
        host, numerics = pump.host, pump.driver.numerics
        if host.ended or host.pieces is not self:  # it died, and may be there again
            return
        if pump.held(self):
            return
        if not self.made:
            now = pump.driver.clock._now
            self.gradient = host.gradient if numerics is None else numerics.finish(host.gradient, now)
        self.made += 1
        if self.made < len(self.ready):
            self._produce()
        else:
            self.stop(pump.driver.clock._now)
            host.node.step += 1
            if numerics is not None:
                numerics.stepped(pump.driver.clock._now)
            pump.uncovered()
        pump.produced(self)

    def stop(self, now: float) -> None:
        """Book what is over."""
        host = self._pump.host
        host.backward = None
        host.compute += now - self.start
        host.span(COMPUTE, self.start, now)
