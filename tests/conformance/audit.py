"""Audit: an algorithm that is watched, on any driver that runs programs in this process.

Rules this module obeys:

* It stands between driver and programs and changes nothing: every effect goes out as it came, every
  result comes in as it was.
* A message is under way from the moment at which its ``Send`` is yielded until a program has it;
  a refused ``TrySend`` takes it back. What is dropped, or lies unread at the end, stays under way:
  so sums over nodes and messages can be checked at any time, whoever is slow, has ended or died.
* ``during`` is called after everything that a program does, ``at_end`` by whoever made the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.effects import Compute, Poll, Receive, Send, TrySend
from core.node import Finished, Message, Node, Program
from core.optimizer import MomentumSGD
from core.tensors import Phantom, Tensors

__all__ = ["Audit", "Step"]

Key = tuple[int, int, str, int]
"""(sender, receiver, tag, step): messages of one key are consumed in the order in which they were sent."""


@dataclass(frozen=True, eq=False)
class Step:
    """One ``Compute``: the parameters at its start, the push-sum weight that went with them, and whether
    any worker's program had returned by then."""

    rank: int
    step: int
    params: np.ndarray
    weight: float
    thinned: bool


@dataclass
class _WatchedSGD(MomentumSGD):
    """The optimizer of ``node``; tells of each update of the whole replica or slice."""

    node: Any = None
    tell: Any = None

    def apply(self, tensors: Tensors, x: Any, g: Any, lr: float) -> None:
        if type(g) is not Phantom and x is self.node.params:
            self.tell(self.node, g, lr)
        super().apply(tensors, x, g, lr)


class Audit:
    """``algorithm``, watched. ``during(audit)`` is called after all that a program does.

    nodes     by id, as the driver made them
    steps     all gradients that were asked for, in order
    applied   sum of all gradients that workers' optimizers applied to their replicas
    weighted  the same, each times the push-sum weight that its worker held at that moment
    moves     by server, what each of its updates took off its slice: eta times the gradient applied
    under_way messages sent and not consumed, by key
    ended     workers whose main program has returned
    crashed   says who has died; set by whoever made the driver
    """

    def __init__(self, algorithm: Any, during: Callable[[Audit], None] | None = None) -> None:
        self.algorithm, self.during = algorithm, during
        self.nodes: dict[int, Node] = {}
        self.steps: list[Step] = []
        self.applied: Any = 0.0
        self.weighted: Any = 0.0
        self.moves: dict[int, list[np.ndarray]] = {}
        self.under_way: dict[Key, deque[Message]] = {}
        self.ended: set[int] = set()
        self.crashed: Callable[[], Collection[int]] = tuple

    def __getattr__(self, name: str) -> Any:
        return getattr(self.algorithm, name)

    # The algorithm's face

    def worker(self, node: Node) -> Program:
        self._meet(node)
        return self._watch(node, self.algorithm.worker(node), main=True)

    def server(self, node: Node) -> Program:
        self._meet(node)
        return self._watch(node, self.algorithm.server(node), main=False)

    def companions(self, node: Node) -> Iterable[Program]:
        return [self._watch(node, program, main=False) for program in self.algorithm.companions(node)]

    # What can be asked

    @property
    def workers(self) -> list[Node]:
        """All workers, by rank, whether they are there or not."""
        return [node for id, node in sorted(self.nodes.items()) if id < node.workers]

    @property
    def servers(self) -> list[Node]:
        """All servers, by id."""
        return [node for id, node in sorted(self.nodes.items()) if id >= node.workers]

    @property
    def died(self) -> Collection[int]:
        """The workers that did not end orderly."""
        return self.crashed()

    @property
    def present(self) -> list[Node]:
        """The workers that have not left."""
        absent = self.ended.union(self.crashed())
        return [node for node in self.workers if node.id not in absent]

    def messages(self, *tags: str) -> Iterator[tuple[int, int, Message]]:
        """(sender, receiver, message) of what is under way; of these tags only, if any are given."""
        for (source, to, tag, _), queue in self.under_way.items():
            if not tags or tag in tags:
                for message in queue:
                    yield source, to, message

    # Watching

    def _meet(self, node: Node) -> None:
        self.nodes[node.id] = node
        node.optimizer = _WatchedSGD(node.optimizer.momentum, node=node, tell=self._updated)

    def _updated(self, node: Node, gradient: Any, lr: float) -> None:
        if node.id >= node.workers:
            self.moves.setdefault(node.id, []).append(lr * np.asarray(gradient))
        else:
            self.applied = self.applied + gradient
            self.weighted = self.weighted + node.weight * gradient

    def _watch(self, node: Node, program: Program, main: bool) -> Program:
        value: Any = None
        failure: Finished | None = None
        while True:
            try:
                effect = program.send(value) if failure is None else program.throw(failure)
            except StopIteration:
                if main:
                    self.ended.add(node.id)
                self._check()
                return
            value, failure = None, None
            if isinstance(effect, Send | TrySend):
                for to, message in effect.pairs:
                    self._put(node.id, to, message)
            elif isinstance(effect, Compute):
                thinned = bool(self.ended)
                self.steps.append(Step(node.id, node.step, _copy(node.params), node.weight, thinned))
            self._check()
            try:
                value = yield effect
            except Finished as finished:
                failure = finished
                last = next(step for step in reversed(self.steps) if step.rank == node.id)
                self.steps.remove(last)
                continue
            except GeneratorExit:
                program.close()
                raise
            if isinstance(effect, TrySend) and not value:
                for to, message in effect.pairs:
                    self._take_back(node.id, to, message)
            elif isinstance(effect, Receive | Poll) and type(value) is Message:
                self._taken(node.id, value)

    def _put(self, source: int, to: int, message: Message) -> None:
        self.under_way.setdefault((source, to, message.tag, message.step), deque()).append(message)

    def _take_back(self, source: int, to: int, message: Message) -> None:
        key = (source, to, message.tag, message.step)
        self.under_way[key].remove(message)
        if not self.under_way[key]:
            del self.under_way[key]

    def _taken(self, to: int, message: Message) -> None:
        key = (message.source, to, message.tag, message.step)
        queue = self.under_way.get(key)
        assert queue, f"node {to} was given {message} twice, or it was never sent"
        queue.popleft()
        if not queue:
            del self.under_way[key]

    def _check(self) -> None:
        if self.during is not None:
            self.during(self)


def _copy(params: Any) -> np.ndarray:
    return np.zeros(0) if type(params) is Phantom else np.array(params)
