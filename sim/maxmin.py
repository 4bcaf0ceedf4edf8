"""Max-min fair rates by progressive filling.

Rules this module obeys:

* All rates grow together; when a link is full, the flows on it keep the rate that they have
  (Bertsekas and Gallager, Data Networks, section 6.5.2). The link that stopped a flow is its
  bottleneck: it is full, and no flow on it is faster.
* Of equal links the one with more flows comes first, then the one met first: no result depends on
  hashing.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol, TypeVar

__all__ = ["LinkLike", "fill"]


class LinkLike(Protocol):
    """A link: ``capacity`` in bytes/s."""

    capacity: float


LinkT = TypeVar("LinkT", bound=LinkLike)


def fill(paths: Sequence[Sequence[LinkT]]) -> tuple[list[float], list[LinkT]]:
    """Rate (bytes/s) and bottleneck link of each flow; ``paths`` holds the links of every flow (>= 1)."""
    on: dict[LinkT, list[int]] = {}
    for i, path in enumerate(paths):
        for link in path:
            on.setdefault(link, []).append(i)
    links = list(on)
    index = {link: j for j, link in enumerate(links)}
    left = [link.capacity for link in links]
    count = [len(on[link]) for link in links]
    heap = [(left[j] / count[j], -count[j], j) for j in range(len(links))]
    heapify(heap)
    rates = [-1.0] * len(paths)
    stopped_by = [path[0] for path in paths]
    while heap:
        share, _, j = heappop(heap)
        if not count[j]:
            continue
        current = left[j] / count[j]
        if current > share:
            heappush(heap, (current, -count[j], j))
            continue
        share = current
        for i in on[links[j]]:
            if rates[i] >= 0:
                continue
            rates[i], stopped_by[i] = share, links[j]
            for link in paths[i]:
                k = index[link]
                left[k] = max(left[k] - share, 0.0)
                count[k] -= 1
    return rates, stopped_by
