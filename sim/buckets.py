"""Links that are ahead after a pause: what a token bucket, as a kernel's shaper is one, lets pass at once.

Rules this module obeys:

* A link earns its rate always and saves what nobody uses, up to ``burst`` bytes. What it has saved passes
  at once, the rest of a message at its rate. So a pause of less than burst / rate costs nothing: whoever
  waited meanwhile has waited, but the message ends when it would have ended without it.
* Only messages that have both of their links to themselves (``fifo``) meet buckets: those that are
  shared out by max-min flow at rates, without savings.
"""

from __future__ import annotations

from math import inf

__all__ = ["Bucket", "Path", "Savings"]


class Bucket:
    """What a link of ``rate`` bytes/s has saved, known by ``spent``: when it would have carried all that it
    has, had it never been ahead."""

    __slots__ = ("_pause", "_rate", "spent")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._pause = rate, burst / rate
        self.spent = -inf

    def after(self, start: float, nbytes: float) -> float:
        """What ``spent`` will be when it has carried ``nbytes`` more, from ``start`` on."""
        saved = start - self._pause
        return max(saved, self.spent) + nbytes / self._rate


class Path:
    """The links of a message's path, one after the other."""

    __slots__ = ("_links",)

    def __init__(self, *links: Bucket) -> None:
        self._links = links

    def last(self, start: float, nbytes: float) -> float:
        """When the last of ``nbytes`` will have passed, from ``start`` on."""
        return max(start, *(link.after(start, nbytes) for link in self._links))

    def spend(self, start: float, nbytes: float) -> None:
        """So many bytes pass from ``start`` on."""
        for link in self._links:
            link.spent = link.after(start, nbytes)


class Savings:
    """The buckets of all NICs, by machine and direction; every one holds ``burst`` bytes."""

    def __init__(self, burst: float) -> None:
        self._burst = burst
        self._buckets: dict[tuple[int, str], Bucket] = {}

    def path(self, source: int, up: float, target: int, down: float) -> Path:
        """From machine ``source`` by its ``up`` link to machine ``target`` by its ``down`` link, bytes/s."""
        return Path(self._bucket(source, "up", up), self._bucket(target, "down", down))

    def _bucket(self, machine: int, direction: str, rate: float) -> Bucket:
        key = machine, direction
        if key not in self._buckets:
            self._buckets[key] = Bucket(rate, self._burst)
        return self._buckets[key]
