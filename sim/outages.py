"""Servers that crash and come back: what is held up meanwhile, what is sent again, what is lost.

Rules this module obeys:

* While a server is down nothing moves to or from it; what others send to it waits at their end.
* When it is back it learns from every node what that has sent and not been told to be done with: what was
  under way, and what lay unread in its inbox, is sent again, from the first byte, in order. Nobody is
  answered twice, and nothing is applied twice.
* Its state is what it was: like a real server (docs/checkpoints.md) it plays its journal again from its last
  checkpoint on, which is part of the time that it is away. What it was computing when it died counts as done.
* A server that does not come back ends the run: its slice of the model is lost.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from core.node import Message
from sim.network import HELD, Network, Pair, Transfer

if TYPE_CHECKING:
    from sim.faults import FaultyHost

__all__ = ["Outage"]


class Outage:
    """A server is down: ``end`` brings it back. ``nodes``: all that may ever send to it."""

    def __init__(self, network: Network, host: FaultyHost, nodes: list[FaultyHost]) -> None:
        for node in nodes:
            network.pair(node, host)
            network.pair(host, node)
        self._pairs = [*(node.pairs[host.id] for node in nodes), *host.pairs.values()]
        again: dict[Pair, list[Transfer]] = {pair: _unread(pair, host) for pair in self._pairs}
        host.inbox.clear()
        for pair in self._pairs:
            self._hold(network, pair, again[pair])

    @staticmethod
    def _hold(network: Network, pair: Pair, again: list[Transfer]) -> None:
        """Nothing of ``pair`` moves from now on; what did will be sent again after ``again``."""
        source, current = pair.source, pair.current
        behind = [*pair.behind, *(transfer for transfer in source.queue if transfer.pair is pair)]
        pair.behind.clear()
        if behind:
            source.queue = deque(transfer for transfer in source.queue if transfer.pair is not pair)
        if current is not None:
            network.stop(current)
            pair.undelivered += 1
            message = current.message  # a silence may have left only a part of it to be moved
            again.append(network.carrier(pair, message, _size(message)))
        stopper = Transfer(pair, None, 0.0)
        stopper.phase = HELD
        pair.current = stopper
        pair.behind = deque((*again, *behind))
        if source.queue:
            network.advance(source)

    def end(self, now: float) -> None:
        """The server is back: all that waits for it asks anew."""
        for pair in self._pairs:
            pair.current = None
            if pair.behind:
                pair.behind[0].queued = now
                pair.follow()


def _unread(pair: Pair, host: FaultyHost) -> list[Transfer]:
    """Messages of ``pair`` in the server's inbox, of senders that are still there to send them again."""
    if pair.target is not host:
        return []
    roster, source = host.roster, pair.source.id
    known = roster.back.get(source, 0)
    since = roster.log[known - 1][0] if known else 0
    entries = sorted(
        (
            entry[:2]
            for queue in host.inbox.values()
            for entry in queue
            if entry[2] is pair and entry[0] > since
        ),
        key=lambda entry: entry[0],
    )
    pair.unread = 0
    if source in roster.departed:
        return []
    pair.undelivered += len(entries)
    carrier = pair.network.carrier
    return [carrier(pair, message, _size(message)) for _, message in entries]


def _size(message: Message) -> float:
    """All of its bytes."""
    return 0.0 if message.tensor is None else float(message.tensor.nbytes)
