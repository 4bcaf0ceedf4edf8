"""Performs a schedule over Send, Receive and Flush: one attempt at an all-reduce.

Rules this module obeys:

* Parts are sent as views of the tensor; they are flushed before the exchange ends.
* Whatever comes is read at once and put aside for the lane that will await it, so that nobody's
  messages hold up those of others, and a program that waits hears of departures.
* With a window of 1 (ring, halving-doubling) the next part for a member waits until the last one is
  delivered. Schedules that pipeline have none: they wait in receives only, so two members never wait
  for each other to read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from core.collectives import trees
from core.collectives.schedules import (
    ADD,
    FLUSH,
    SCALE,
    SEND,
    Choice,
    Op,
    Schedule,
    groups_of,
    halving_doubling,
    hierarchical,
    ring,
)  # fmt: skip
from core.effects import Effect, Flush, Receive, Send
from core.node import LEFT, Left, Message, Node

__all__ = ["CHOICE", "PIECE", "RESULT", "STATUS", "State", "exchange", "newer", "schedule_of"]

CHOICE = "allreduce.choice"
"""Where a node's memory holds the ``Choice``; a ring without it."""

PIECE, STATUS, RESULT = "allreduce.piece", "allreduce.status", "allreduce.result"
_ANYTHING = Receive((PIECE, STATUS, RESULT, LEFT))
_RING = Choice()


@dataclass
class State:
    """What a node remembers between its all-reduces.

    round     how many it has completed
    result    the tensor of the last completed one
    epoch     the set of departed workers that was last agreed on, as a number
    number    how often workers came: a driver that lets any come counts that (``agreement.renew``)
    statuses  epoch -> worker -> round that the worker was in when it learned of that epoch
    early     (source, lane) -> pieces of the agreed epoch that nobody has awaited yet, in order
    """

    round: int = 0
    result: Any = None
    epoch: int = 0
    number: int = 0
    statuses: dict[int, dict[int, int]] = field(default_factory=dict)
    early: dict[tuple[int, int], deque[Message]] = field(default_factory=dict)

    def keep(self, piece: Message) -> None:
        """Put a piece aside for the lane that will await it."""
        self.early.setdefault((piece.source, int(piece.number)), deque()).append(piece)

    def hear(self, status: Message) -> None:
        """Note in which round the sender was when it learned of the status's epoch."""
        self.statuses.setdefault(status.versions, {})[status.source] = status.step


def newer(epoch: int, than: int) -> bool:
    """Whether more workers have come in ``epoch``, or as many have, and more have departed."""
    return epoch >> 32 > than >> 32


@lru_cache(maxsize=64)
def _fixed(algorithm: str, members: int, chunks: int) -> Schedule:
    if algorithm == "tree":
        return trees.double_tree(members, chunks)
    return {"ring": ring, "halving_doubling": halving_doubling}[algorithm](members)


@lru_cache(maxsize=8)
def _grouped(ranks: tuple[int, ...], machine_of: tuple[int, ...]) -> Schedule:
    return hierarchical(groups_of(ranks, machine_of))


def schedule_of(choice: Choice, ranks: tuple[int, ...], nbytes: float) -> Schedule:
    """The schedule among ``ranks`` (rising) for a tensor of ``nbytes``."""
    if choice.algorithm == "hierarchical":
        return _grouped(ranks, choice.machine_of)
    chunks = trees.chunks_of(nbytes, choice.chunk) if choice.algorithm == "tree" else 1
    return _fixed(choice.algorithm, len(ranks), chunks)


def exchange(node: Node, state: State, tensor: Any) -> Generator[Effect, Any, bool]:
    """Perform the schedule among the live workers; False if a departure interrupts it."""
    members = tuple(sorted(node.live))
    if len(members) == 1:
        return True
    schedule = schedule_of(node.memory.get(CHOICE, _RING), members, tensor.nbytes)
    place, size, grain = members.index(node.id), len(tensor), schedule.grain
    lanes = [schedule.ops(lane, place) for lane in range(len(schedule.lanes))]
    current: list[Op | None] = [next(lane, None) for lane in lanes]
    sent: dict[int, None] = {}
    while True:
        for number, lane in enumerate(lanes):
            op = current[number]
            while op is not None:
                parts = tensor[op.start * size // grain : op.stop * size // grain]
                if op.kind == SEND:
                    to = members[op.peer]
                    piece = Message(PIECE, parts, state.round, versions=state.epoch, number=float(op.lane))
                    sent[to] = None
                    yield Send((to, piece), window=schedule.window)
                elif op.kind == FLUSH:
                    yield Flush(members[op.peer])
                elif op.kind == SCALE:
                    node.tensors.scale(parts, 1 / len(members))
                else:
                    queue = state.early.get((members[op.peer], op.lane))
                    if not queue:
                        break
                    combine = node.tensors.accumulate if op.kind == ADD else node.tensors.assign
                    combine(parts, queue.popleft().tensor)
                op = next(lane, None)
            current[number] = op
        awaited = {members[op.peer] for op in current if op is not None}
        if not awaited:
            break
        if not (yield from _listen(node, state, awaited)):
            return False
    yield Flush(*sent)
    return True


def _listen(node: Node, state: State, awaited: set[int]) -> Generator[Effect, Any, bool]:
    """Read until one more piece is there; False when this exchange cannot go on.

    It cannot when somebody awaited has left, nor where somebody has told, maybe while others still agreed
    on this exchange, of one more that left. What came twice (a result that two epochs' agreements both
    sent) is read all the same: unread, it would keep the sender's next piece out of the inbox.
    """
    if not awaited <= node.live or any(newer(epoch, state.epoch) for epoch in state.statuses):
        return False
    while True:
        message = yield _ANYTHING
        if type(message) is Left:
            if message.rank in awaited:
                return False
        elif message.tag == STATUS:
            state.hear(message)
            if newer(message.versions, state.epoch):
                return False
        elif message.tag == PIECE and message.versions == state.epoch:
            state.keep(message)
            return True
