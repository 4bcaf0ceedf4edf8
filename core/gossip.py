"""What the decentralized algorithms share: a graph's options, the need of a peer, shares of a weighted sum.

Rules this module obeys:

* Push-sum: a worker holds a share (w x, w) of a weighted sum, as its parameters x and ``node.weight``
  w; a message carries one, as its tensor and its number. Sums over all workers and all messages under
  way are conserved.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from core.errors import is_whole, require
from core.node import Message, Node
from core.topology import Spec

__all__ = ["Arrivals", "check_graph_options", "check_peers", "hashable", "merge"]


def check_graph_options(degree: Any, graph_seed: Any) -> None:
    """Raise ``OptionError`` unless both are whole numbers, whichever graph is chosen.

    What ``random_regular`` asks of ``degree`` besides depends on the number of workers.
    """
    require("degree", degree, is_whole(degree) and degree >= 1, "a whole number of at least 1")
    require(
        "graph_seed", graph_seed, is_whole(graph_seed) and graph_seed >= 0, "a whole number of at least 0"
    )


def check_peers(workers: int) -> None:
    """Raise ``OptionError`` for the field ``workers`` where a worker would have no peer."""
    require("workers", workers, workers >= 2, "at least 2: who gossips needs a peer")


def hashable(spec: Spec) -> Any:
    """``spec`` as a key: what is made of a graph is made once, not once per worker."""
    return spec if isinstance(spec, str) else tuple((i, j) for i, j in spec)


def merge(node: Node, message: Message) -> None:
    """Take in the share (w' x', w') of ``message``: x <- (w x + w' x') / (w + w'),  w <- w + w'."""
    share = message.number
    if share:
        node.weight += share
        node.tensors.mix(node.params, message.tensor, share / node.weight)
        node.blends += 1


@dataclass
class Arrivals:
    """What a worker has yet to get: ``due`` in order of steps as (step, source); ``last`` step by source."""

    due: deque[tuple[int, int]] = field(default_factory=deque)
    last: dict[int, float] = field(default_factory=dict)

    def missing(self, until: int) -> bool:
        """Whether anything that was sent to this worker at step ``until`` or before has not come."""
        due, last = self.due, self.last
        while due and last.get(due[0][1], -1) >= due[0][0]:
            due.popleft()
        return bool(due) and due[0][0] <= until
