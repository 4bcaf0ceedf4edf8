"""A worker's dealings with a global model that is sharded over servers: push gradients, adopt models.

Rules this module obeys:

* A gradient goes to all of its servers in one effect, starting with shard (rank mod S), so that
  the servers count gradients alike and workers do not march on the same server.
* Every gradient message says, per shard, at which version of that shard it was computed, so
  servers can tell its staleness.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from core.effects import Effect, Receive
from core.joining import VERSIONS
from core.node import GRADIENT, MODEL, Message, Node

__all__ = ["PendingGradient", "ShardedModel"]

_RECEIVE_MODEL = Receive(MODEL)


class ShardedModel:
    """The shards as one worker sees them: where they live and which version it holds of each."""

    __slots__ = ("_complete", "_index", "_latest", "_mixed", "_order", "_whole", "node", "versions")

    def __init__(self, node: Node) -> None:
        self.node = node
        shards = node.shards
        first = node.id % len(shards)
        self._order = (*shards[first:], *shards[:first]) if first else shards
        self._index = {shard.server: shard for shard in shards}
        self._whole = shards[0].server if len(shards) == 1 else None
        self.versions = node.memory.pop(VERSIONS, None) or [0] * len(shards)
        self._latest: dict[int, Message] = {}
        self._complete = 0
        self._mixed: dict[int, int] = {}

    def messages(
        self, gradient: Any, count: int = 1, versions: list[int] | None = None
    ) -> tuple[tuple[int, Message], ...]:
        """(server, message) pairs that carry ``gradient``, a sum of ``count`` gradients.

        ``versions`` holds, per shard, the sum over these gradients of the version that each was
        computed at; by default ``count`` times the version held now.
        """
        held = self.versions if versions is None else versions
        times = count if versions is None else 1
        step = self.node.step - 1
        if self._whole is not None:
            return ((self._whole, Message(GRADIENT, gradient, step, count, times * held[0])),)
        return tuple(
            (s.server, Message(GRADIENT, s.of(gradient), step, count, times * held[s.index]))
            for s in self._order
        )

    def pull(self) -> Generator[Effect, Any, None]:
        """Wait for one model message of every shard and adopt each: x_i <- x~."""
        node = self.node
        for _ in self._order:
            self.adopt((yield _RECEIVE_MODEL))
        node.blends += 1

    def adopt(self, message: Message) -> None:
        """x_i <- x~ on the sender's shard."""
        node = self.node
        if self._whole is not None:
            node.tensors.assign(node.params, message.tensor)
            self.versions[0] = node.version = message.versions
            return
        shard = self._index[message.source]
        node.tensors.assign(shard.of(node.params), message.tensor)
        self.versions[shard.index] = node.version = message.versions

    def mix_when_complete(self, message: Message) -> None:
        """x_i <- (1 - alpha) x_i + alpha x~ once a newer push is in from every shard.

        ``message.step`` numbers a server's pushes to this worker, ``message.number`` is alpha.
        Of each shard only the latest push is kept, and none is mixed in twice: a shard that was ahead
        of the others when the last model became complete waits for its next push.
        """
        latest, mixed = self._latest, self._mixed
        latest[message.source] = message
        if len(latest) < len(self._order):
            return
        complete = min(m.step for m in latest.values())
        if complete > self._complete:
            self._complete = complete
            for source, part in latest.items():
                if part.step > mixed.get(source, 0):
                    mixed[source] = part.step
                    self._mix(part)
            self.node.blends += 1

    def _mix(self, message: Message) -> None:
        node, shard = self.node, self._index[message.source]
        if message.number:
            part = node.params if self._whole is not None else shard.of(node.params)
            node.tensors.mix(part, message.tensor, message.number)
        self.versions[shard.index] = node.version = message.versions


class PendingGradient:
    """Gradients that are computed but not yet handed to the transport, as one sum."""

    __slots__ = ("_node", "_total", "_versions", "count")

    def __init__(self, node: Node) -> None:
        self._node, self._total, self.count = node, None, 0
        self._versions: list[int] = []

    def add(self, gradient: Any, versions: list[int]) -> None:
        """Add one gradient, computed at these versions of the shards; owns it from here on."""
        if self.count == 0:
            self._total, self._versions = gradient, list(versions)
        else:
            self._node.tensors.accumulate(self._total, gradient)
            self._versions = [a + b for a, b in zip(self._versions, versions, strict=True)]
        self.count += 1

    def contents(self) -> tuple[Any, int, list[int]]:
        """(sum, count, versions) as ``ShardedModel.messages`` takes them."""
        return self._total, self.count, self._versions

    def clear(self) -> None:
        """The transport has taken the sum."""
        self.count, self._total = 0, None
