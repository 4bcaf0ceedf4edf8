"""Servers that crash and come back, or move: what is held up meanwhile, what is sent again, what is lost.

Rules this module obeys:

* While a server is down nothing moves to or from it; what others send to it waits at their end.
* When it is back it learns from every node what that has sent and not been told to be done with: what was
  under way, and what lay unread in its inbox, is sent again, from the first byte, in order. Nobody is
  answered twice, and nothing is applied twice.
* Its state is what it was: like a real server (docs/checkpoints.md) it plays its journal again from its last
  checkpoint on, which is part of the time that it is away. What it was computing when it died counts as done.
* A server that does not come back ends the run: its slice of the model is lost.
* A server that moves in good order (``sim.moving``) is out likewise, but loses nothing: it keeps what lay
  unread of those who cannot send it again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from core.node import Message
from sim.network import Network, Pair, Transfer
from sim.phases import HELD

if TYPE_CHECKING:
    from sim.faults import FaultyHost
    from sim.host import Entry

__all__ = ["Outage", "size", "taken_out"]


class Outage:
    """A server is out: ``end`` brings it back.

    nodes  all that may ever send to it; orderly: it lives
    """

    def __init__(
        self, network: Network, host: FaultyHost, nodes: list[FaultyHost], *, orderly: bool = False
    ) -> None:
        for node in nodes:
            network.pair(node, host)
            network.pair(host, node)
        self._host = host
        self.pairs = [*(node.pairs[host.id] for node in nodes), *host.pairs.values()]
        again = self._unread(orderly)
        for pair in self.pairs:
            self._hold(network, pair, again.get(pair, []))

    @staticmethod
    def _hold(network: Network, pair: Pair, again: list[Transfer]) -> None:
        """Nothing of ``pair`` moves from now on; what did will be sent again after ``again``."""
        current = pair.current
        behind = [*pair.behind, *taken_out(pair)]
        pair.behind.clear()
        if current is not None:
            network.stop(current)
            pair.undelivered += 1
            message = current.message  # a silence may have left only a part of it to be moved
            again.append(network.carrier(pair, message, size(message)))
        stopper = Transfer(pair, None, 0.0)
        stopper.phase = HELD
        pair.current = stopper
        pair.behind = deque((*again, *behind))
        if pair.source.queue:
            network.advance(pair.source)

    def _unread(self, orderly: bool) -> dict[Pair, list[Transfer]]:
        """Messages in the server's inbox, taken out, whose senders are still there to send them again.

        Those of others are lost, or stay where they are if it is ``orderly``.
        """
        host = self._host
        found: dict[Pair, list[tuple[int, Message]]] = {}
        kept: dict[Any, deque[Entry]] = {}
        for tag, queue in host.inbox.items():
            for sequence, message, pair in queue:
                if pair is not None and _there(host, pair, sequence):
                    found.setdefault(pair, []).append((sequence, message))
                elif orderly:
                    kept.setdefault(tag, deque()).append((sequence, message, pair))
        host.inbox.clear()
        host.inbox.update(kept)
        for pair in self.pairs:
            if pair.target is host:
                pair.unread = pair.unread - len(found.get(pair, ())) if orderly else 0
        again = {}
        for pair, entries in found.items():
            pair.undelivered += len(entries)
            carrier = pair.network.carrier
            ordered = sorted(entries, key=lambda entry: entry[0])
            again[pair] = [carrier(pair, message, size(message)) for _, message in ordered]
        return again

    def crash(self) -> None:
        """It dies while it is out."""
        for pair, again in self._unread(False).items():
            pair.behind.extendleft(reversed(again))

    def end(self, now: float) -> None:
        """The server is back: all that waits for it asks anew."""
        for pair in self.pairs:
            pair.current = None
            if pair.behind:
                pair.behind[0].queued = now
                pair.follow()


def _there(host: FaultyHost, pair: Pair, sequence: int) -> bool:
    """Whether the sender of the message of that number, in the same life, is there to send it again."""
    roster, source = host.roster, pair.source.id
    known = roster.back.get(source, 0)
    since = roster.log[known - 1][0] if known else 0
    return sequence > since and source not in roster.departed


def taken_out(pair: Pair) -> list[Transfer]:
    """What of ``pair`` stands among its node's outgoing messages, taken out."""
    source = pair.source
    found = [transfer for transfer in source.queue if transfer.pair is pair]
    if found:
        source.queue = deque(transfer for transfer in source.queue if transfer.pair is not pair)
    return found


def size(message: Message) -> float:
    """All of its bytes."""
    return 0.0 if message.tensor is None else float(message.tensor.nbytes)
