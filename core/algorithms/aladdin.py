"""ALADDIN: asymmetric centralized training (Algorithms 1 and 2 of the paper, section 3.2).

    worker i                                       server
    1  g_i <- gradient at x_i                      3  receive g_i;  c~ <- c~ + 1;  c_i <- c_i + 1
    3  x_i <- x_i - eta g_i                        6  g~ <- g~ + g_i
    4  send g_i, do not wait                       7  if c_i >= pi:
    5  if a global model x~, alpha has come:       8     x~ <- x~ - (eta / n) g~
    6     x_i <- (1 - alpha) x_i + alpha x~        10    send x~, alpha to worker i
                                                   11    g~ <- 0;  c~ <- 0;  c_i <- 0

The paper leaves four points open; each is an option here (docs/algorithms.md says what we read):

on_busy  what a worker does when gradients come faster than its link drains them: ``coalesce``
         (default) adds the gradient to the pending one and goes on, so the worker never waits;
         ``wait`` holds it until the previous send is out
push     ``try`` (default): while the previous push to i is under way the server keeps c_i and tries
         again at i's next gradient; ``queue`` sends every push in order
alpha    weight of the global model: ``n_pi`` = 1 - 1/sqrt(n pi) (text; default), ``count`` =
         1 - 1/sqrt(c~) (pseudo-code), or a number in [0, 1] (slides)
reduce   ``sum`` (default): x~ moves by (eta/n) g~, so that without momentum global and local models
         drift alike as Lemma 1 needs; ``mean``: by eta g~/c~ (the pseudo-code, dividing first)

The gradient that triggers the push is added (the pseudo-code counts but drops it).
Ablations (section 5.5): ``variant: l2`` applies each gradient at once, ``l1`` also never pushes
(by name in core/algorithms/ablations.py).

Invariants: no gradient is lost or applied twice; under ``coalesce`` a worker never waits or sends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from core.effects import Compute, Poll, Send, TrySend
from core.errors import is_number, is_whole, require
from core.joining import JOIN, answer, expecting
from core.node import GRADIENT, MODEL, Finished, Message, Node, Program
from core.replica import PendingGradient, ShardedModel

__all__ = ["Aladdin"]

_COMPUTE, _POLL_MODEL = Compute(), Poll(MODEL)


@dataclass(frozen=True)
class Aladdin:
    """ALADDIN with its update period ``pi`` and a choice for every ambiguous line."""

    name: ClassVar[str] = "aladdin"
    title: ClassVar[str] = "ALADDIN (asymmetric centralized training)"
    centralized: ClassVar[bool] = True
    collective: ClassVar[bool] = False
    joins: ClassVar[bool] = True

    pi: int = 1
    alpha: str | float = "n_pi"
    reduce: str = "sum"
    on_busy: str = "coalesce"
    push: str = "try"
    variant: str = "full"
    server_momentum: float = 0.0

    def __post_init__(self) -> None:
        whole = is_whole(self.pi)
        require("pi", self.pi, whole and self.pi >= 1, "a whole number of at least 1")
        number = is_number(self.alpha)
        known = 0 <= self.alpha <= 1 if number else self.alpha in ("n_pi", "count")  # type: ignore[operator]
        require("alpha", self.alpha, known, "n_pi, count or a number in [0, 1]")
        require("reduce", self.reduce, self.reduce in ("sum", "mean"), "sum or mean")
        require("on_busy", self.on_busy, self.on_busy in ("coalesce", "wait"), "coalesce or wait")
        require("push", self.push, self.push in ("try", "queue"), "try or queue")
        require("variant", self.variant, self.variant in ("full", "l1", "l2"), "full, l1 or l2")
        momentum = isinstance(self.server_momentum, int | float) and 0 <= self.server_momentum < 1
        require("server_momentum", self.server_momentum, momentum, "a number in [0, 1)")

    def worker(self, node: Node) -> Program:
        model, pending = ShardedModel(node), PendingGradient(node)
        try:
            while True:
                gradient = yield _COMPUTE
                pending.add(gradient, model.versions)
                node.optimizer.apply(node.tensors, node.params, gradient, node.lr())
                while (message := (yield _POLL_MODEL)) is not None:
                    model.mix_when_complete(message)
                pairs = model.messages(*pending.contents())
                if self.on_busy == "wait":
                    yield Send(*pairs)
                    pending.clear()
                elif (yield TrySend(*pairs)):
                    pending.clear()
        except Finished:
            if pending.count:
                yield Send(*model.messages(*pending.contents()))

    def server(self, node: Node) -> Program:
        tensors, ledger, optimizer, x = node.tensors, node.ledger, node.optimizer, node.params
        optimizer.momentum = self.server_momentum
        lazy = self.variant == "full"
        total, gathered = tensors.zeros_like(x) if lazy else None, 0
        since: dict[int, int] = {}
        pushes: dict[int, int] = {}
        receive = expecting(node, GRADIENT)
        while True:
            message = yield receive
            worker = message.source
            if message.tag == JOIN:
                since[worker] = pushes[worker] = 0
                yield answer(node, message)
                continue
            ledger.hold(worker, message.count, message.versions)
            gathered += message.count
            since[worker] = since.get(worker, 0) + message.count
            due = self.variant != "l1" and since[worker] >= self.pi
            if lazy:
                tensors.accumulate(total, message.tensor)
            if due or not lazy:
                lr = node.lr() / node.workers if self.reduce == "sum" else node.lr() / gathered
                optimizer.apply(tensors, x, total if lazy else message.tensor, lr)
                ledger.settle(node.version)
                node.version += 1
            if due:
                if lazy:
                    tensors.scale(total, 0.0)
                weight = self._weight(node.workers, gathered)
                number = pushes.get(worker, 0) + 1
                push = Message(MODEL, tensors.snapshot(x), number, versions=node.version, number=weight)
                if self.push == "queue":
                    yield Send((worker, push), window=math.inf)
                    taken = True
                else:
                    taken = yield TrySend((worker, push))
                if taken:
                    since[worker], pushes[worker] = 0, number
            if due or not lazy:
                gathered = 0

    def companions(self, node: Node) -> Iterable[Program]:
        return ()

    def _weight(self, workers: int, gathered: int) -> float:
        """Alpha of a push to one of ``workers`` that follows the flush of ``gathered`` gradients."""
        if self.alpha == "n_pi":
            return 1 - 1 / math.sqrt(workers * self.pi)
        if self.alpha == "count":
            return 1 - 1 / math.sqrt(gathered)
        return float(self.alpha)
