"""How a worker that comes while the run is under way gets the parameters, and the step to go on from.

Rules this module obeys:

* A joiner asks all servers (``JOIN``), or, without servers, the lowest live rank; the answer (``STATE``)
  is real bytes. Whoever is asked and leaves is no answer: the next one is asked. Who finds nobody begins
  with the initial parameters.
* Servers answer in their program, in the order of their messages, so that whatever was the old
  incarnation's is dealt with before the new one is known.
* A peer that answers says at which step it is and gives what a replica needs to go on alike: under
  collectives the momentum, too.
* What a server says of the step is the run's progress: gradients applied per worker, or as its algorithm
  decides (``progress``; barriers and clocks say so themselves).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from core.effects import Effect, Receive, Send
from core.node import Left, Message, Node
from core.tensors import Phantom

__all__ = ["JOIN", "JOINED_LATE", "STATE", "VERSIONS", "answer", "enter", "expecting", "fetch", "state"]

JOIN, STATE = "join.request", "join.state"

VERSIONS, JOINED_LATE, SHARED = "join.versions", "join.late", "join.shared"
"""Keys of ``node.memory``: versions of the shards that a joiner has fetched; that it is one; further tensors
of a replica's state, which its program leaves there."""


def expecting(node: Node, *tags: str) -> Receive:
    """Receive ``tags``, and joiners' requests where workers may join."""
    wanted = (*tags, JOIN) if node.joins else tags
    return Receive(wanted[0] if len(wanted) == 1 else wanted)


def answer(node: Node, request: Message, step: int | None = None) -> Send:
    """Give a joiner this server's slice; ``step`` is the one to go on from (default: the run's progress)."""
    if step is None:
        step = node.ledger.applied_total // node.workers
    slice_ = node.tensors.snapshot(node.params)
    return Send((request.source, Message(STATE, slice_, step, versions=node.version)))


def fetch(node: Node) -> Generator[Effect, Any, dict[int, Message]]:
    """Ask all servers and adopt what they send; their answers, by server."""
    first = node.id % len(node.shards)
    shards = (*node.shards[first:], *node.shards[:first])
    yield Send(*((shard.server, Message(JOIN)) for shard in shards), window=float("inf"))
    kept_by, replies = {shard.server: shard for shard in shards}, {}
    versions = [0] * len(shards)
    for _ in shards:
        reply = yield Receive(STATE)
        shard = kept_by[reply.source]
        replies[reply.source] = reply
        versions[shard.index] = reply.versions
        if reply.tensor is not None:
            node.tensors.assign(shard.of(node.params), reply.tensor)
    node.memory[VERSIONS] = versions
    node.version = max(versions)
    return replies


def enter(node: Node, own: Callable[[Node], Any] | None = None) -> Generator[Effect, Any, bool]:
    """All that a joiner does before its program; False where it found nobody who has the parameters.

    own: how its algorithm deals with the servers.
    """
    node.memory[JOINED_LATE] = True
    if not node.shards:
        return (yield from _from_peer(node))
    if own is not None:
        yield from own(node)
    else:
        replies = yield from fetch(node)
        node.step = max(reply.step for reply in replies.values())
    return True


def _from_peer(node: Node) -> Generator[Effect, Any, bool]:
    asked = {node.id}
    while candidates := node.live - asked:
        peer = min(candidates)
        asked.add(peer)
        yield Send((peer, Message(JOIN)))
        reply = yield Receive(STATE, source=peer)
        if type(reply) is Left or reply.tensor is None:
            continue
        parts, last = [reply.tensor], reply
        while len(parts) < reply.count and type(last) is not Left:
            last = yield Receive(STATE, source=peer)
            parts.append(None if type(last) is Left else last.tensor)
        if type(last) is Left:
            continue
        node.tensors.assign(node.params, parts[0])
        if len(parts) > 1:
            node.optimizer.velocity = None if type(parts[1]) is Phantom else parts[1]
        node.memory[SHARED] = tuple(parts[2:])
        node.step, node.weight = reply.step, reply.number
        return True
    node.weight = 1 / node.workers
    return False


def state(node: Node, collective: bool) -> list[Any]:
    """What a joiner needs of this replica: parameters; under collectives its momentum and ``SHARED``, too."""
    if not collective:
        return [node.params]
    momentum = node.optimizer.velocity
    if momentum is None:
        momentum = node.tensors.zeros_like(node.params)
    return [node.params, momentum, *node.memory.get(SHARED, ())]
