"""When the bytes of a message may leave, on links that emulate a NIC's rate.

Rules this module obeys:

* No clock and no sleeping: it only says when. Times are absolute monotonic seconds; rates bytes/s.
* A message whose transmission starts at ``t`` occupies both NICs during [t, t + overhead +
  bytes/rate], rate = min(sender's up, receiver's down). That is the fluid FIFO model; lateness of
  the host never shifts the following message, because every time is derived from the NIC's own.
* A piece is released when half of it is due to have left, the short last one ``LEAD`` before its
  last byte is, so that all has crossed the host's sockets in time; the receiver delivers no message
  before its last byte is due.
* ``native`` links are the same code with an infinite rate: everything is released at once. So are
  links that the kernel shapes; under ``fifo`` their last piece is held until the link is about to run
  dry, so that the next message, which is asked for with it, does not overlap this one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from real.wire import CHUNK

__all__ = ["CREDIT", "LEAD", "Links"]

LEAD = 1e-3
"""Seconds by which the last piece leaves early (the message is held back at the receiver)."""

CREDIT = 10e-3
"""Bound on how far in the past a transmission may start to make up for the host's scheduling, seconds."""

_SLACK = 60.0
"""Seconds by which a time may be ahead of the present for no reason that pacing knows of."""

_PIECE, _TAIL, _BREATH = 1 << 20, 1 << 16, 8e-3
_FRAME, _AHEAD = 0.05, 128 << 10
"""On shaped links: seconds that a frame may take, and bytes by which an idle link is ahead (its burst)."""


@dataclass(frozen=True, slots=True)
class Links:
    """Every node's NIC: rates by node id (bytes/s), latency in seconds; ``paced`` False = native.

    overhead: seconds per message that occupy the NICs before its bytes move (paced only).
    shaped: the kernel holds them to their rates (not paced), wire rates with all headers.
    """

    paced: bool
    up: tuple[float, ...] = ()
    down: tuple[float, ...] = ()
    latency: tuple[float, ...] = ()
    overhead: float = 0.0
    shaped: bool = False

    def rate(self, source: int, to: int) -> float:
        """Bytes per second from ``source`` to ``to``; infinite on native links."""
        return min(self.up[source], self.down[to]) if self.paced else math.inf

    def path_latency(self, source: int, to: int) -> float:
        """Seconds that a request takes from ``source`` to ``to`` (0 on native links: the host's own)."""
        return self.latency[source] + self.latency[to] if self.paced else 0.0

    def duration(self, source: int, to: int, nbytes: int) -> float:
        """Seconds that a message of ``nbytes`` occupies both NICs."""
        return self.overhead + nbytes / self.rate(source, to) if self.paced else 0.0

    def horizon(self, nbytes: int) -> float:
        """Seconds ahead that any other node may date what concerns messages of up to ``nbytes``."""
        slowest = min((*self.up, *self.down), default=math.inf) if self.paced else math.inf
        return _SLACK + 2 * (self.overhead + nbytes / slowest) + 2 * max(self.latency, default=0.0)

    def pieces(self, source: int, to: int, nbytes: int, start: float) -> list[tuple[float, int, int]]:
        """(release time, offset, length) of every piece of a message that starts at ``start``."""
        if self.shaped:
            return self._in_time(min(self.up[source], self.down[to]), nbytes, start)
        if not self.paced:
            return _at_once(nbytes, CHUNK, start) or [(start, 0, 0)]
        rate, begin = self.rate(source, to), start + self.overhead
        size = int(min(max(_PIECE, rate * _BREATH), CHUNK))
        tail = max(nbytes - _TAIL, 0)
        cuts = [(at, min(size, tail - at)) for at in range(0, tail, size)]
        body = [(begin + (at + length / 2) / rate, at, length) for at, length in cuts]
        return [*body, (begin + nbytes / rate - LEAD, tail, nbytes - tail)]

    @staticmethod
    def _in_time(rate: float, nbytes: int, start: float) -> list[tuple[float, int, int]]:
        """All pieces at once; the last when the link, had it been idle, would still move the one before."""
        if not math.isfinite(rate):
            return _at_once(nbytes, CHUNK, start) or [(start, 0, 0)]
        tail = max(nbytes - _TAIL, 0)
        body = _at_once(tail, min(max(_TAIL, int(rate * _FRAME)), CHUNK), start)
        dry = start + (tail - _AHEAD) / rate - LEAD
        return [*body, (max(start, dry), tail, nbytes - tail)]


def _at_once(nbytes: int, size: int, start: float) -> list[tuple[float, int, int]]:
    return [(start, at, min(size, nbytes - at)) for at in range(0, nbytes, size)]
