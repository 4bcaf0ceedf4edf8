"""What the decentralized algorithms share: the need of a peer, and shares of a weighted sum.

Rules this module obeys:

* Push-sum: a worker holds a share (w x, w) of a weighted sum, as its parameters x and ``node.weight``
  w; a message carries one, as its tensor and its number. Sums over all workers and all messages under
  way are conserved.
"""

from __future__ import annotations

from core.errors import require
from core.node import Message, Node

__all__ = ["check_peers", "merge"]


def check_peers(workers: int) -> None:
    """Raise ``OptionError`` for the field ``workers`` where a worker would have no peer."""
    require("workers", workers, workers >= 2, "at least 2: who gossips needs a peer")


def merge(node: Node, message: Message) -> None:
    """Take in the share (w' x', w') of ``message``: x <- (w x + w' x') / (w + w'),  w <- w + w'."""
    share = message.number
    if share:
        node.weight += share
        node.tensors.mix(node.params, message.tensor, share / node.weight)
        node.blends += 1
