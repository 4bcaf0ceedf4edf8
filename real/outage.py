"""A node's links cut for a while: what a transport does that plays it, and what that costs a message.

Rules this module obeys:

* While its links are cut no frame of the node leaves or enters; nothing is lost. Afterwards all goes on
  where it stopped, in order: on paced links what was moving takes that much longer.
* The node itself goes on computing and waiting, and so does its talk with the launcher: only links are cut.
"""

from __future__ import annotations

from real.endpoint import Endpoint

__all__ = ["Outages", "postpone"]


class Outages:
    """Intervals (``planned``) of monotonic seconds in which the links are cut.

    Any thread may add one while another asks; both change the one list in place, so that none gets lost.
    """

    def __init__(self) -> None:
        self.planned: list[tuple[float, float]] = []

    def add(self, start: float, end: float) -> None:
        """Cut the links from ``start`` to ``end``."""
        self.planned.append((start, end))

    def until(self, now: float) -> float | None:
        """When the present outage ends; None if there is none."""
        return max((end for start, end in self.planned if start <= now < end), default=None)

    def over(self, now: float) -> float:
        """Forget what has ended; returns how long that was, 0 if nothing has."""
        ended = [(start, end) for start, end in self.planned if end <= now]
        for cut in ended:
            self.planned.remove(cut)
        return max(end for _, end in ended) - min(start for start, _ in ended) if ended else 0.0


def postpone(endpoint: Endpoint, seconds: float) -> None:
    """Move what was in motion on paced links by so much."""
    if not (seconds and endpoint.links.paced):
        return
    with endpoint.changed:
        began = endpoint.clock() - seconds
        for going in endpoint._moving.values():
            going.pieces = [(at + seconds, offset, length) for at, offset, length in going.pieces]
            if going.pieces and going.motion is not None:
                going.motion.postpone(seconds, began)
        for coming in endpoint._incoming.values():
            coming.motion.postpone(seconds, began)
        endpoint._out_free += seconds
        endpoint._in_free += seconds
