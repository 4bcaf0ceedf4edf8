"""All-reduce as a node program over Send, Receive and Flush, and how it survives departures.

Rules this module obeys:

* ``all_reduce(node, tensor)`` is a generator that a driver runs inside the program that yielded
  ``AllReduce``. Afterwards ``tensor`` holds the mean over the live workers, alike on all of them.
* Ring (Patarasuk and Yuan 2009): n-1 steps of reduce-scatter, n-1 of all-gather, each sending one
  n-th of the tensor to the right-hand neighbour. The next step begins when both the send and the
  receive of this one are done (a window of 1).
* Chunks are views of ``tensor``, so nothing is handed back before it is flushed; and the program
  must leave the tensor alone until its next all-reduce, which may have to hand it on.

Departures. A worker notices that its left-hand neighbour is gone when the ring waits for it. It
then tells all survivors which round it is in; whoever hears of that answers likewise, and with all
answers for one set of departed workers in hand the survivors agree: those that completed the round
pass its result on to those that did not; if nobody completed it, all start it again from an intact
copy, without the departed. Two survivors are never more than one round apart, because nobody
completes a round that another has not entered.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from core.effects import Effect, Flush, Receive, Send
from core.node import LEFT, Left, Message, Node

__all__ = ["all_reduce", "completed", "ring_steps"]

_RING, _STATUS, _RESULT = "allreduce.ring", "allreduce.status", "allreduce.result"
_IN_RING = Receive((_RING, _STATUS, _RESULT, LEFT))
_IN_AGREEMENT = Receive((_RING, _STATUS, _RESULT, LEFT))


@dataclass
class _State:
    """What a node remembers between its all-reduces.

    round     how many it has completed
    result    the tensor of the last completed one
    epoch     the set of departed workers that was last agreed on, as ``_epoch`` encodes it
    statuses  epoch -> worker -> round that the worker was in when it learned of that epoch
    early     ring messages of the agreed epoch that came while others still agreed
    """

    round: int = 0
    result: Any = None
    epoch: int = 0
    statuses: dict[int, dict[int, int]] = field(default_factory=dict)
    early: list[Message] = field(default_factory=list)


def all_reduce(node: Node, tensor: Any) -> Generator[Effect, Any, None]:
    """Replace ``tensor`` (flat, alike in length on all workers) by its mean over the live workers."""
    state = _state(node)
    if node.workers > 1:
        original = node.tensors.snapshot(tensor)
        done = state.epoch == _epoch(node) and (yield from _ring(node, state, tensor))
        while not done:
            done = yield from _agree(node, state, tensor)
            if not done:
                node.tensors.assign(tensor, original)
                done = yield from _ring(node, state, tensor)
    completed(node, tensor)


def completed(node: Node, tensor: Any) -> None:
    """Note a completed all-reduce; drivers call it for those that they do without this program."""
    state = _state(node)
    state.round += 1
    state.result = tensor


def ring_steps(members: int) -> int:
    """Messages that each member sends in one ring all-reduce: 2 (n - 1)."""
    return 2 * (members - 1)


def _state(node: Node) -> _State:
    state: _State = node.memory.setdefault("allreduce", _State())
    return state


def _epoch(node: Node) -> int:
    """The departed workers as a number: their count, then a checksum of who they are; 0 for none."""
    if len(node.live) == node.workers:
        return 0
    departed = sorted(set(range(node.workers)) - node.live)
    return len(departed) << 32 | crc32(repr(departed).encode())


def _ring(node: Node, state: _State, tensor: Any) -> Generator[Effect, Any, bool]:
    """One ring over the live workers; False if a departure interrupts it."""
    members = sorted(node.live)
    n, place = len(members), members.index(node.id)
    if n == 1:
        return True
    right, left = members[(place + 1) % n], members[place - 1]
    cuts = [i * len(tensor) // n for i in range(n + 1)]

    def chunk(i: int) -> Any:
        return tensor[cuts[i % n] : cuts[i % n + 1]]

    for step in range(ring_steps(n)):
        gathering = step >= n - 1
        shift = step - (n - 1) - 1 if gathering else step
        piece = Message(_RING, chunk(place - shift), state.round, versions=state.epoch)
        yield Send((right, piece), window=1)
        message = yield from _next_piece(state, left)
        if message is None:
            return False
        target = chunk(place - shift - 1)
        if gathering:
            node.tensors.assign(target, message.tensor)
        else:
            node.tensors.accumulate(target, message.tensor)
            if step == n - 2:
                node.tensors.scale(target, 1 / n)
    yield Flush(right)
    return True


def _next_piece(state: _State, left: int) -> Generator[Effect, Any, Message | None]:
    """The left-hand neighbour's next chunk, or None when this ring cannot go on.

    It cannot either where somebody has told, while others still agreed on this ring, of one more that left.
    What came twice (a result that two epochs' agreements both sent) is read all the same: unread, it would
    keep the sender's next chunk out of the inbox.
    """
    if state.early:
        return state.early.pop(0)
    if any(_newer(epoch, state.epoch) for epoch in state.statuses):
        return None
    while True:
        message = yield _IN_RING
        if type(message) is Left:
            if message.rank == left:
                return None
        elif message.tag == _STATUS:
            _hear(state, message)
            if _newer(message.versions, state.epoch):
                return None
        elif message.tag == _RING and message.versions == state.epoch:
            return message  # type: ignore[no-any-return]


def _agree(node: Node, state: _State, tensor: Any) -> Generator[Effect, Any, bool]:
    """Settle with all survivors who is in which round; True if ``tensor`` now holds this round's result."""
    told = state.epoch
    while True:
        epoch = _epoch(node)
        if epoch != told:
            told = epoch
            state.early = [piece for piece in state.early if piece.versions == epoch]
            status = Message(_STATUS, None, state.round, versions=epoch)
            others = sorted(node.live - {node.id})
            state.statuses.setdefault(epoch, {})[node.id] = state.round
            if others:
                yield Send(*((other, status) for other in others), window=float("inf"))
        rounds = state.statuses.get(epoch, {})
        if epoch != state.epoch and node.live <= rounds.keys():
            ahead = sorted(rank for rank in node.live if rounds[rank] > min(rounds[r] for r in node.live))
            behind = sorted(node.live - set(ahead)) if ahead else []
            if node.id not in behind:
                if ahead and node.id == ahead[0]:
                    result = Message(_RESULT, state.result, state.round - 1, versions=epoch)
                    yield Send(*((rank, result) for rank in behind), window=float("inf"))
                if epoch == _epoch(node):
                    _conclude(state, epoch)
                    return False
                continue
        message = yield _IN_AGREEMENT
        if type(message) is Left:
            continue
        if message.tag == _STATUS:
            _hear(state, message)
        elif message.tag == _RESULT and message.step == state.round:
            node.tensors.assign(tensor, message.tensor)
            if message.versions == _epoch(node):
                _conclude(state, message.versions)
            return True
        elif message.tag == _RING and message.versions == told:
            state.early.append(message)


def _newer(epoch: int, than: int) -> bool:
    """Whether more workers have departed in ``epoch``."""
    return epoch >> 32 > than >> 32


def _hear(state: _State, status: Message) -> None:
    state.statuses.setdefault(status.versions, {})[status.source] = status.step


def _conclude(state: _State, epoch: int) -> None:
    """All survivors agree on ``epoch``; what was said about earlier ones no longer matters."""
    state.epoch = epoch
    state.statuses = {key: heard for key, heard in state.statuses.items() if _newer(key, epoch)}
