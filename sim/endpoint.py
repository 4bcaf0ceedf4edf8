"""Endpoint: a node as the network sees it, and what the network tells it; MachineLike: where it stands.

Rules this module obeys:

* An endpoint's methods are called when bytes begin and cease to move and when a message is delivered;
  here they do nothing, the driver's hosts override them.
* They are called only where somebody asked (``blocked``, ``watching``) or must know.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from mypy_extensions import mypyc_attr

if TYPE_CHECKING:
    from sim.network import Nic, Pair, Transfer

__all__ = ["EMPTY", "Endpoint", "MachineLike"]

EMPTY: deque[Transfer] = deque()
"""Stands for every queue that nothing has stood in yet; nothing is ever put into it."""


class MachineLike(Protocol):
    """What the network must know about a machine: bytes/s and seconds."""

    @property
    def up(self) -> float:
        """Bytes/s that leave through the NIC."""

    @property
    def down(self) -> float:
        """Bytes/s that enter."""

    @property
    def latency(self) -> float:
        """Seconds that the NIC adds to every path."""

    @property
    def local_bandwidth(self) -> float:
        """Bytes/s between nodes on the machine."""

    @property
    def local_latency(self) -> float:
        """Seconds between nodes on the machine."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Endpoint:
    """One node.

    nic          of its machine
    queue        outgoing messages that have not asked for a grant yet
    outstanding  messages that ask, or move, as heads of that queue
    out          its messages that move now
    blocked      asks for calls of ``turning``
    watching     asks for calls of ``released``
    lag          seconds by which its messages ask late, in the mean
    pairs        its connections by receiver
    sources      nodes that have a connection to it, where somebody asks
    """

    __slots__ = ("blocked", "id", "lag", "nic", "out", "outstanding", "pairs", "queue", "sources", "watching")

    nic: Nic

    def __init__(self, id: int) -> None:
        self.id = id
        self.queue: deque[Transfer] = EMPTY
        self.outstanding = self.out = 0
        self.blocked = self.watching = False
        self.lag = 0.0
        self.pairs: dict[int, Pair] = {}
        self.sources: list[Endpoint] | None = None

    def line_up(self, transfer: Transfer) -> None:
        """Let ``transfer`` stand last among the outgoing messages."""
        if self.queue is EMPTY:
            self.queue = deque()
        self.queue.append(transfer)

    def late(self) -> float:
        """Seconds by which its next message asks late."""
        return self.lag

    def turning(self, now: float) -> None:
        """Its first bytes are about to move, or its last ones have just ceased to."""

    def receiving(self, transfer: Transfer, now: float) -> None:
        """Bytes of ``transfer`` begin to move in."""

    def received(self, transfer: Transfer, now: float) -> None:
        """Bytes of ``transfer`` no longer move in."""

    def delivered(self, transfer: Transfer) -> None:
        """``transfer`` to this node is delivered."""

    def released(self, transfer: Transfer) -> None:
        """``transfer`` from this node is delivered or dropped: its window has room again."""
