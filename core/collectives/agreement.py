"""All-reduce as a node program, and how it survives departures.

Rules this module obeys:

* ``all_reduce(node, tensor)`` is a generator that a driver runs inside the program that yielded
  ``AllReduce``. Afterwards ``tensor`` holds the mean over the live workers, alike on all of them.
* What is sent are views of ``tensor``, so nothing is handed back before it is flushed; and the program
  must leave the tensor alone until its next all-reduce, which may have to hand it on.
* It knows nothing of the algorithm, which ``core.collectives.exchange`` performs.

Departures. A worker notices that another is gone when it awaits something of it. It then tells all
survivors which round it is in; whoever hears of that answers likewise, and with all answers for one set
of departed workers in hand the survivors agree: those that completed the round pass its result on to
those that did not; if nobody completed it, all start it again from an intact copy, without the departed.
Two survivors are never more than one round apart, because nobody completes a round that another has not
entered: everybody's tensor is part of every result.

Arrivals. There is nothing to agree on: a driver that takes in somebody does so while no all-reduce is under
way anywhere, and tells all who is there from then on (``renew``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any
from zlib import crc32

from core.collectives.exchange import PIECE, RESULT, STATUS, State, exchange, newer
from core.effects import Effect, Receive, Send
from core.node import LEFT, Left, Message, Node

__all__ = ["all_reduce", "completed", "renew", "rounds"]

_IN_AGREEMENT = Receive((PIECE, STATUS, RESULT, LEFT))

_NUMBER_AT = 48
"""The bit of an epoch at which ``State.number`` begins; a message has room for 63."""


def all_reduce(node: Node, tensor: Any) -> Generator[Effect, Any, None]:
    """Replace ``tensor`` (flat, alike in length on all workers) by its mean over the live workers."""
    state = _state(node)
    if node.workers > 1:
        original = node.tensors.snapshot(tensor)
        done = state.epoch == _epoch(node) and (yield from exchange(node, state, tensor))
        while not done:
            done = yield from _agree(node, state, tensor)
            if not done:
                node.tensors.assign(tensor, original)
                done = yield from exchange(node, state, tensor)
    completed(node, tensor)


def completed(node: Node, tensor: Any) -> None:
    """Note a completed all-reduce; drivers call it for those that they do without this program."""
    state = _state(node)
    state.round += 1
    state.result = tensor


def rounds(node: Node) -> int:
    """All-reduces that ``node`` has completed."""
    return _state(node).round


def renew(node: Node, number: int, completed: int) -> None:
    """From now on ``node.live`` take part, all of whom have completed so many; none is under way.

    number  of such changes so far, the same for all
    """
    state = _state(node)
    state.number, state.round = number, completed
    state.statuses, state.early = {}, {}
    state.epoch = _epoch(node)


def _state(node: Node) -> State:
    state: State = node.memory.setdefault("allreduce", State())
    return state


def _epoch(node: Node) -> int:
    """Who is not there as a number: how often somebody came, their count, a checksum of who they are."""
    came = _state(node).number << _NUMBER_AT
    if len(node.live) == node.workers:
        return came
    departed = sorted(set(range(node.workers)) - node.live)
    return came | len(departed) << 32 | crc32(repr(departed).encode())


def _agree(node: Node, state: State, tensor: Any) -> Generator[Effect, Any, bool]:
    """Settle with all survivors who is in which round; True if ``tensor`` now holds this round's result."""
    told = state.epoch
    while True:
        epoch = _epoch(node)
        if epoch != told:
            told = epoch
            state.early = {
                key: deque(piece for piece in pieces if piece.versions == epoch)
                for key, pieces in state.early.items()
            }
            status = Message(STATUS, None, state.round, versions=epoch)
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
                    result = Message(RESULT, state.result, state.round - 1, versions=epoch)
                    yield Send(*((rank, result) for rank in behind), window=float("inf"))
                if epoch == _epoch(node):
                    _conclude(state, epoch)
                    return False
                continue
        message = yield _IN_AGREEMENT
        if type(message) is Left:
            continue
        if message.tag == STATUS:
            state.hear(message)
        elif message.tag == RESULT and message.step == state.round:
            node.tensors.assign(tensor, message.tensor)
            if message.versions == _epoch(node):
                _conclude(state, message.versions)
            return True
        elif message.tag == PIECE and message.versions == told:
            state.keep(message)


def _conclude(state: State, epoch: int) -> None:
    """All survivors agree on ``epoch``; what was said about earlier ones no longer matters."""
    state.epoch = epoch
    state.statuses = {key: heard for key, heard in state.statuses.items() if newer(key, epoch)}
